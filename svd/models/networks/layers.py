"""Layers that the UNet and the temporal decoder share, all on channels-last memory.

One memory layout serves every layer: bytes ordered b, t, h, w, c. Frames "(b t) c h w"
(channels-last), the time view "b c t (h w)" (channels-last too) and tokens "b t (h w) c" are then
the same bytes, so that moving between spatial and temporal layers copies nothing.
Modules are named as in the release's code, so that state dicts have the release's keys.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from svd.models.networks.cpu.choice import takes_cpu_paths
from svd.models.networks.cpu.convolution import ConvolutionOverTime

M = TypeVar("M", bound=nn.Module)


def sinusoid(
    values: Float[Tensor, "*n"], dim: int, *, max_period: float = 10000.0
) -> Float[Tensor, "*n {dim}"]:
    """Return [cos | sin] of the values at geometrically spaced frequencies.

    Args:
        values: Any real numbers; not scaled.
        dim: Even number of features.
        max_period: Longest wavelength over 2 pi.

    Computed in fp32 at least. Source: Vaswani 2017, with cos first as in the release.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    half = dim // 2
    exponents = torch.arange(half, device=values.device, dtype=values.dtype) / half
    angles = values[..., None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def embedding_mlp(in_dim: int, out_dim: int, *, hidden_dim: int | None = None) -> nn.Sequential:
    """Return Linear, SiLU, Linear; hidden_dim is out_dim if not given."""
    hidden_dim = hidden_dim or out_dim
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, out_dim))


def zero(module: M) -> M:
    """Set all parameters of a module to zero and return it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def call_or_recompute(
    function: Callable[..., Tensor], *inputs: object, keep_activations: bool
) -> Tensor:
    """Call a function; unless activations are kept, save only its inputs for backward.

    Backward then calls the function again, and stops as soon as it has what it needs: a function
    that ends in a convolution or a linear layer does not run that layer twice.
    """
    if keep_activations or not torch.is_grad_enabled():
        return function(*inputs)
    result: Tensor = checkpoint(
        function, *inputs, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )
    return result


def to_time(x: Float[Tensor, "bt c h w"], num_frames: int) -> Float[Tensor, "b c t hw"]:
    """Return the time view of frames.

    The order of these three views matters: for one clip, other ways to the same shape leave the
    first axis with a stride that PyTorch's kernels do not take for channels-last, and they copy.
    """
    flat = x.flatten(2)
    return flat.view(-1, num_frames, *flat.shape[1:]).transpose(1, 2)


def to_frames(x: Float[Tensor, "b c t hw"], height: int) -> Float[Tensor, "bt c h w"]:
    """Return the frames of a time view."""
    flat = x.transpose(1, 2).flatten(0, 1)
    return flat.view(*flat.shape[:2], height, -1)


class SpatialConv(nn.Conv2d):
    """A 3x3 convolution of frames that keeps their size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def kernel(self) -> Float[Tensor, "o i 3 3"]:
        """Return the weight as a two-dimensional kernel."""
        return self.weight

    def offset(self) -> Float[Tensor, " o"]:
        """Return the bias."""
        return _present(self.bias)


class TemporalConv(nn.Conv3d):
    """A (3, 1, 1) convolution of the time view, run by the mature two-dimensional kernels.

    Its parameters have Conv3d's shapes, as in the release, but it convolves "b c t (h w)".
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def kernel(self) -> Float[Tensor, "o i 3 1"]:
        """Return the weight as a two-dimensional kernel, without a copy."""
        return self.weight.squeeze(-1)

    def offset(self) -> Float[Tensor, " o"]:
        """Return the bias."""
        return _present(self.bias)

    def forward(self, x: Float[Tensor, "b c t hw"]) -> Float[Tensor, "b o t hw"]:
        """Convolve over time."""
        return convolve(x, self.kernel(), self.offset())


def convolve(
    x: Float[Tensor, "n i p q"], kernel: Float[Tensor, "o i kp kq"], bias: Float[Tensor, " o"]
) -> Float[Tensor, "n o p q"]:
    """Convolve frames, or the time view with a kernel "o i 3 1", keeping their size."""
    if kernel.shape[2:] == (3, 1) and takes_cpu_paths(x):
        convolved: Tensor = ConvolutionOverTime.apply(x, kernel, bias)
        return convolved
    return F.conv2d(x, kernel, bias, padding=(kernel.shape[2] // 2, kernel.shape[3] // 2))


def _present(bias: Tensor | None) -> Tensor:
    if bias is None:
        raise TypeError("this convolution was built without a bias")
    return bias


class Downsample(nn.Module):
    """Halves height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt c h2 w2"]:
        """Convolve with stride 2."""
        result: Tensor = self.op(x)
        return result


class Upsample(nn.Module):
    """Doubles height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "bt c h w"]) -> Float[Tensor, "bt c h2 w2"]:
        """Repeat each position 2x2 times and convolve."""
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class Merge(nn.Module):
    """How much of the temporal branch a layer lets through, learned as one logit."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([logit]))

    def forward(self, image_only: Bool[Tensor, " b"] | None) -> Float[Tensor, " n"]:
        """Return the temporal branch's weight: one number, or one per clip, 0 for pictures.

        sigmoid(mix_factor) is the weight of the spatial branch.
        """
        weight = torch.sigmoid(-self.mix_factor)
        if image_only is None:
            return weight
        return torch.where(image_only, torch.zeros_like(weight), weight)


def use_channels_last(module: M) -> M:
    """Lay out all convolution weights channels-last, in place; values and shapes stay."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return module
