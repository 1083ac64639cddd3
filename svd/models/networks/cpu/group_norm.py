"""GroupNorm of channels-last frames on a CPU, where PyTorch's is slow: groups of few channels.

PyTorch's kernels then go through each group by itself, a few numbers at a time; whole-tensor
operations take a tenth of the time at best.
"""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from svd.models.networks.cpu.choice import takes_cpu_paths

# As measured: from so many positions on, PyTorch's forward is fast with few channels too.
_MANY_POSITIONS = 1024


class Normalised(NamedTuple):
    """The normalised frames, with the mean and the inverse deviation of each group."""

    frames: Float[Tensor, "n c p q"]
    mean: Float[Tensor, "n g"]
    rstd: Float[Tensor, "n g"]


class NarrowGroupNorm(torch.autograd.Function):
    """GroupNorm of frames for which `is_narrow` holds."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, num_groups: int, eps: float, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Normalise "n c p q"."""
        normed = group_norm(x, weight, bias, num_groups, eps)
        ctx.save_for_backward(x, weight, normed.mean, normed.rstd)
        return normed.frames

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        grad_x, grad_weight, grad_bias = group_norm_backward(grad, *ctx.saved_tensors)
        return grad_x, None, None, grad_weight, grad_bias


def is_narrow(x: Float[Tensor, "n c p q"], num_groups: int) -> bool:
    """Return whether PyTorch's GroupNorm takes 1.3 to 6 times ours, as was measured."""
    return (
        takes_cpu_paths(x)
        and x.dtype in (torch.float32, torch.float64)  # sums in bf16 would lose the mean
        and x.shape[1] < 8 * num_groups
        and x.shape[2:].numel() >= 256
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float) -> Normalised:
    """Normalise frames "n c p q", the faster way."""
    n, c, *size = x.shape
    positions = size[0] * size[1]
    if positions >= _MANY_POSITIONS or not is_narrow(x, num_groups):
        return Normalised(
            *torch.native_group_norm(x, weight, bias, n, c, positions, num_groups, eps)
        )
    mean, rstd = _statistics(x, num_groups, eps)
    return Normalised(apply_norm(x, weight, bias, mean, rstd), mean, rstd)


def apply_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Normalise frames "n c p q" with statistics "n g" that are known."""
    slope = rstd[..., None] * _by_group(weight, mean.shape[1])
    offset = _by_group(bias, mean.shape[1]) - mean[..., None] * slope
    rows = torch.addcmul(_per_channel(offset), _rows(x), _per_channel(slope))
    return rearrange(rows, "n (p q) c -> n c p q", q=x.shape[3])


def group_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, the faster way."""
    n, c, *size = x.shape
    groups = mean.shape[1]
    if not is_narrow(x, groups):
        result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm_backward(
            grad, x, mean, rstd, weight, n, c, size[0] * size[1], groups, [True, True, True]
        )
        return result
    return _narrow_backward(grad, x, weight, mean, rstd)


def _statistics(x: Tensor, num_groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and inverse deviation of each group; two passes, which lose nothing."""
    rows = _rows(x)
    count = x[0].numel() // num_groups
    mean = _sum_over_group(rows.sum(1), num_groups) / count
    spread = mean.expand(*mean.shape[:2], x.shape[1] // num_groups)
    squares = (rows - _per_channel(spread)).square_().sum(1)
    variance = _sum_over_group(squares, num_groups) / count
    return mean[..., 0], (variance[..., 0] + eps).rsqrt_()


def _narrow_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """With y = a x + b in each group, a = gamma rstd and b = beta - a mean.

    Sums over the positions of grad and of grad x give the gradients of gamma and beta, and those
    of mean and rstd.
    """
    groups = mean.shape[1]
    rows, grads = _rows(x), _rows(grad)
    mean, rstd = mean[..., None], rstd[..., None]  # n g 1
    grad_sum = rearrange(grads.sum(1), "n (g d) -> n g d", g=groups)
    product_sum = rearrange((grads * rows).sum(1), "n (g d) -> n g d", g=groups)
    gamma = _by_group(weight, groups)
    count = rows.shape[1] * gamma.shape[1]
    offset = (grad_sum * gamma).sum(-1, keepdim=True)
    slope = (product_sum * gamma).sum(-1, keepdim=True)
    per_x = (offset * mean - slope) * rstd**3 / count
    constant = -per_x * mean - offset * rstd / count
    width = gamma.shape[1]
    grad_x = torch.addcmul(
        _per_channel(constant.expand(-1, -1, width)),
        rows,
        _per_channel(per_x.expand(-1, -1, width)),
    )
    grad_x.addcmul_(grads, _per_channel(rstd * gamma))
    grad_weight = ((product_sum - grad_sum * mean) * rstd).sum(0).flatten()
    grad_frames = rearrange(grad_x, "n (p q) c -> n c p q", q=x.shape[3])
    return grad_frames, grad_weight, grad_sum.sum(0).flatten()


def _rows(x: Float[Tensor, "n c p q"]) -> Float[Tensor, "n pq c"]:
    return rearrange(x, "n c p q -> n (p q) c")


def _by_group(y: Float[Tensor, " c"], groups: int) -> Float[Tensor, "g d"]:
    return y.view(groups, -1)


def _per_channel(y: Float[Tensor, "n g d"]) -> Float[Tensor, "n 1 c"]:
    return y.reshape(len(y), 1, -1)


def _sum_over_group(y: Float[Tensor, "n c"], groups: int) -> Float[Tensor, "n g 1"]:
    return y.view(len(y), groups, -1).sum(-1, keepdim=True)
