"""GroupNorm, SiLU and convolution on a CPU, of which only the input is kept for backward.

The normed frames and the activated ones are made again, by two passes over the input: a few per
cent of what the convolution takes, for two thirds of the memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from svd.models.networks.cpu.choice import takes_cpu_paths
from svd.models.networks.cpu.convolution import convolution, convolution_backward
from svd.models.networks.cpu.group_norm import apply_norm, group_norm, group_norm_backward


def keeps_input_only(x: Tensor) -> bool:
    """Return whether frames, or the time view, go this way: bf16 would be rounded twice."""
    return takes_cpu_paths(x) and x.dtype in (torch.float32, torch.float64)


class NormSiluConvolution(torch.autograd.Function):
    """Convolve SiLU(GroupNorm(x)), keeping the size."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        num_groups: int,
        eps: float,
        weight: Tensor,
        bias: Tensor,
        kernel: Tensor,
        offset: Tensor,
    ) -> Tensor:
        """Return "n o p q" for x "n i p q", the norm's weight and bias, and the convolution's."""
        normed = group_norm(x, weight, bias, num_groups, eps)
        ctx.save_for_backward(x, weight, bias, kernel, normed.mean, normed.rstd)
        return convolution(F.silu(normed.frames, inplace=True), kernel, offset)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, of the norm's weight and bias, and the convolution's."""
        x, weight, bias, kernel, mean, rstd = ctx.saved_tensors
        wants_norm = any(ctx.needs_input_grad[:5])
        normed = apply_norm(x, weight, bias, mean, rstd)
        grad_activated, grad_kernel, grad_offset = convolution_backward(
            grad, F.silu(normed), kernel, [wants_norm, *ctx.needs_input_grad[5:]]
        )
        if grad_activated is None:
            return None, None, None, None, None, grad_kernel, grad_offset
        grad_normed = torch.ops.aten.silu_backward(grad_activated, normed)
        grad_x, grad_weight, grad_bias = group_norm_backward(grad_normed, x, weight, mean, rstd)
        return grad_x, None, None, grad_weight, grad_bias, grad_kernel, grad_offset
