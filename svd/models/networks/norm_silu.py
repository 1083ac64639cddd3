"""GroupNorm and SiLU(GroupNorm(x)), the faster way for the device and the frames."""

from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from svd.models.networks.cpu.group_norm import NarrowGroupNorm, is_narrow


def norm_silu(norm: nn.GroupNorm, x: Float[Tensor, "n c p q"]) -> Float[Tensor, "n c p q"]:
    """Return the activated, normalised frames in the memory layout of x.

    torch.compile fuses the plain formula by itself.
    """
    if x.is_cuda and _is_fusable(x) and not torch.compiler.is_compiling():
        from svd.models.networks.norm_silu_kernels import NormSilu

        result: Tensor = NormSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
        return result
    return F.silu(group_norm(norm, x))


def group_norm(norm: nn.GroupNorm, x: Float[Tensor, "n c p q"]) -> Float[Tensor, "n c p q"]:
    """Return the normalised frames in the memory layout of x, on a CPU the faster way."""
    if is_narrow(x, norm.num_groups):
        result: Tensor = NarrowGroupNorm.apply(x, norm.num_groups, norm.eps, norm.weight, norm.bias)
        return result
    normed: Tensor = norm(x)
    return normed


def _is_fusable(x: Tensor) -> bool:
    return _has_triton() and x.is_contiguous(memory_format=torch.channels_last)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None  # it comes with PyTorch's builds for CUDA
