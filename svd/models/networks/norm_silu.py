"""SiLU(GroupNorm(x)): fused where a GPU and channels-last frames allow it, else PyTorch's own."""

from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from svd.models.networks.cpu.choice import takes_cpu_paths
from svd.models.networks.cpu.narrow_norm import NarrowGroupNorm, is_narrow


def norm_silu(norm: nn.GroupNorm, x: Float[Tensor, "n c p q"]) -> Float[Tensor, "n c p q"]:
    """Return the activated, normalised frames in the memory layout of x.

    torch.compile fuses the plain formula by itself; a CPU has a channels-last GroupNorm, whose
    backward is ours where groups are narrow.
    """
    if takes_cpu_paths(x) and is_narrow(norm, x):
        return F.silu(NarrowGroupNorm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps))
    if x.is_cuda and _is_fusable(x) and not torch.compiler.is_compiling():
        from svd.models.networks.norm_silu_kernels import NormSilu

        result: Tensor = NormSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
        return result
    return F.silu(norm(x))


def _is_fusable(x: Tensor) -> bool:
    return _has_triton() and x.is_contiguous(memory_format=torch.channels_last)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None  # it comes with PyTorch's builds for CUDA
