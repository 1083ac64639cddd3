"""Convolutions on a CPU, with a faster gradient of the (3, 1, 1) kernel than oneDNN's."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class ConvolutionOverTime(torch.autograd.Function):
    """Convolve "b i t n" with a kernel "o i 3 1"."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Return "b o t n"."""
        ctx.save_for_backward(x, kernel)
        return convolution(x, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of x, kernel and bias, as far as they are asked for."""
        x, kernel = ctx.saved_tensors
        return convolution_backward(grad, x, kernel, ctx.needs_input_grad)


def convolution(
    x: Float[Tensor, "n i p q"], kernel: Float[Tensor, "o i kp kq"], bias: Float[Tensor, " o"]
) -> Float[Tensor, "n o p q"]:
    """Convolve, keeping the size."""
    return F.conv2d(x, kernel, bias, padding=_padding(kernel))


def convolution_backward(
    grad: Float[Tensor, "n o p q"],
    x: Float[Tensor, "n i p q"],
    kernel: Float[Tensor, "o i kp kq"],
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, kernel and bias, as far as they are wanted.

    That of a kernel over time is made by matrix products, which take half of oneDNN's time.
    """
    wants_x, wants_kernel, wants_bias = wanted
    if kernel.shape[2:] != (3, 1):
        return _gradients(grad, x, kernel, wanted)
    return (
        _gradients(grad, x, kernel, [True, False, False])[0] if wants_x else None,
        _gradient_over_time(grad, x) if wants_kernel else None,
        grad.sum((0, 2, 3)) if wants_bias else None,
    )


def _gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    result: tuple[Tensor | None, Tensor | None, Tensor | None]
    result = torch.ops.aten.convolution_backward(
        grad,
        x,
        kernel,
        [len(kernel)],
        [1, 1],
        _padding(kernel),
        [1, 1],
        False,
        [0, 0],
        1,
        list(wanted),
    )
    return result


def _gradient_over_time(
    grad: Float[Tensor, "b o t n"], x: Float[Tensor, "b i t n"]
) -> Float[Tensor, "o i 3 1"]:
    """Return the sum over clips, frames and positions of the output's gradient times the input."""
    outputs, inputs = (rearrange(y, "b c t n -> b t n c") for y in (grad, x))
    # Output t sees the inputs t - 1, t and t + 1.
    pairs = [
        (outputs[:, 1:], inputs[:, :-1]),
        (outputs, inputs),
        (outputs[:, :-1], inputs[:, 1:]),
    ]
    taps = [torch.bmm(a.flatten(1, 2).mT, b.flatten(1, 2)).sum(0) for a, b in pairs]
    return torch.stack(taps, dim=-1).unsqueeze(-1)


def _padding(kernel: Tensor) -> tuple[int, int]:
    return kernel.shape[2] // 2, kernel.shape[3] // 2
