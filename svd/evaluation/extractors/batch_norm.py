"""Batch norms of published networks, folded into the convolutions before them."""

from typing import Final

from torch import Tensor

TENSORFLOW_EPS: Final = 1e-3  # of slim and sonnet; public ports that use torch's 1e-5 differ


def fold(weight: Tensor, *, mean: Tensor, var: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with the norm after it folded in.

    Args:
        weight: Of a convolution without bias, output channels first.
        mean: Of the norm, one number a channel.
        var: Likewise.
        shift: Likewise; the norm has no gain.

    Computed in float64, returned as float32.
    """
    scale = (var.double() + TENSORFLOW_EPS).rsqrt()
    kernel = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    return kernel.float(), (shift.double() - mean.double() * scale).float()
