"""The gated feed-forward layers of the transformers."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from svd.models.networks.cpu.choice import takes_cpu_paths
from svd.models.networks.cpu.feed_forward import AddFeedForward, FeedForwardWeights
from svd.models.networks.layers import call_or_recompute


class _GatedGelu(torch.autograd.Function):
    """value * gelu(gate) for [value | gate], whose backward writes both halves in place.

    Left to autograd, the halves' gradients would be joined by a copy of the whole.
    """

    @staticmethod
    def forward(ctx: Any, pair: Tensor) -> Tensor:
        value, gate = torch.chunk(pair, 2, dim=-1)
        if not ctx.needs_input_grad[0]:
            return F.gelu(gate).mul_(value)
        activated = F.gelu(gate)
        ctx.save_for_backward(pair, activated)
        return value * activated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        pair, activated = ctx.saved_tensors
        value, gate = torch.chunk(pair, 2, dim=-1)
        result = torch.empty_like(pair)
        grad_value, grad_gate = torch.chunk(result, 2, dim=-1)
        torch.mul(grad, activated, out=grad_value)
        torch.ops.aten.gelu_backward.grad_input(grad * value, gate, grad_input=grad_gate)
        return result


def gated_gelu(pair: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
    """Return value * gelu(gate) of [value | gate]. Source: Shazeer 2020 (GEGLU)."""
    if torch.compiler.is_compiling():  # the compiler fuses the plain formula by itself
        value, gate = torch.chunk(pair, 2, dim=-1)
        return value * F.gelu(gate)
    result: Tensor = _GatedGelu.apply(pair)
    return result


class GatedLinear(nn.Linear):
    """A linear layer to values and gates, multiplied."""

    def forward(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        """Project and gate."""
        return gated_gelu(F.linear(x, self.weight, self.bias))


class GatedProjection(nn.Module):
    """Holds the gated layer under the release's name."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.proj = GatedLinear(dim, 2 * hidden_dim)

    def forward(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        """Project and gate."""
        result: Tensor = self.proj(x)
        return result


class FeedForward(nn.Module):
    """A gated hidden layer of four times the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The Identity stands where the release has dropout 0; it keeps the index of the next.
        self.net = nn.Sequential(
            GatedProjection(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """Apply to each token."""
        result: Tensor = self.net(x)
        return result

    def weights_behind(self, norm: nn.LayerNorm) -> FeedForwardWeights:
        """Return the parameters of a norm and of this layer behind it."""
        up, down = cast("GatedProjection", self.net[0]).proj, cast("nn.Linear", self.net[2])
        return FeedForwardWeights(
            norm.weight, norm.bias, up.weight, up.bias, down.weight, down.bias
        )


def add_feed_forward(
    x: Float[Tensor, "*n c"], norm: nn.LayerNorm, layer: FeedForward, *, keep_activations: bool
) -> Float[Tensor, "*n c"]:
    """Return x plus the layer's output for the normed x.

    On a CPU the weights are used without a call of the modules that hold them, whose hooks, if
    anyone had put some there, would not be called.
    """
    if takes_cpu_paths(x):
        added: Tensor = AddFeedForward.apply(
            x, norm.eps, keep_activations and torch.is_grad_enabled(), *layer.weights_behind(norm)
        )
        return added

    def branch(x: Tensor) -> Tensor:
        result: Tensor = layer(norm(x))
        return result

    return x + call_or_recompute(branch, x, keep_activations=keep_activations)
