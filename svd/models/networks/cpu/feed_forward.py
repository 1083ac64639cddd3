"""A gated feed-forward layer on a CPU that takes its tokens in blocks, so that caches hold them.

For all tokens at once the hidden features, eight times as wide as the tokens, would go through main
memory ten times per step; a product, its activation and the next product are then each bound by it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_NUMBERS = 2**19  # of values in a block, and as many gates
# Below this many tokens reading the weights, and adding to their gradients, would take the time.
_MIN_TOKENS = 512


class FeedForwardWeights(NamedTuple):
    """The parameters of a norm and the gated layer behind it.

    Rows of `up` are those of the values, then those of the gates.
    """

    norm_weight: Float[Tensor, " c"]
    norm_bias: Float[Tensor, " c"]
    up_weight: Float[Tensor, "h2 c"]
    up_bias: Float[Tensor, " h2"]
    down_weight: Float[Tensor, "c h"]
    down_bias: Float[Tensor, " c"]

    def zeros(self) -> "FeedForwardWeights":
        """Return sums to add gradients of blocks to, in fp32 at least: bf16 would stop growing."""
        wide = torch.promote_types(self.up_weight.dtype, torch.float32)
        return FeedForwardWeights(*(torch.zeros_like(y, dtype=wide) for y in self))

    def norm(self, block: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normed tokens, their means and their inverse deviations."""
        return torch.native_layer_norm(
            block, self.norm_weight.shape, self.norm_weight, self.norm_bias, eps
        )

    def project(self, normed: Tensor, kept: Sequence[Tensor]) -> list[Tensor]:
        """Return values and gates, written to `kept` if it has places for them."""
        return [
            torch.addmm(bias, normed, weight.mT, out=place)
            for bias, weight, place in zip(
                self.up_bias.chunk(2),
                self.up_weight.chunk(2),
                kept or (None, None),
                strict=True,
            )
        ]


class AddFeedForward(torch.autograd.Function):
    """Return x plus the layer's output for the normed x.

    Of the hidden features backward recomputes the activated gates and their product with the
    values; values and gates too, unless they are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, keep_activations: bool, *weights: Tensor
    ) -> Tensor:
        """Go through tokens "*n c"."""
        layer = FeedForwardWeights(*weights)
        tokens = x.flatten(0, -2)
        hidden = layer.down_weight.shape[1]
        num_kept = 2 if keep_activations and any(ctx.needs_input_grad) else 0
        kept = [x.new_empty(len(tokens), hidden) for _ in range(num_kept)]
        result = x.new_empty(x.shape)
        out = result.view(tokens.shape)
        for rows in _blocks(len(tokens), hidden):
            normed, _, _ = layer.norm(tokens[rows], eps)
            value, gate = layer.project(normed, [place[rows] for place in kept])
            torch.add(tokens[rows], layer.down_bias, out=out[rows])
            out[rows].addmm_(F.gelu(gate).mul_(value), layer.down_weight.mT)
        ctx.save_for_backward(x, *weights, *kept)
        ctx.eps = eps
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and, if any weight is trained, of the weights."""
        x, *saved = ctx.saved_tensors
        layer, kept = FeedForwardWeights(*saved[:6]), saved[6:]
        tokens, grads = x.flatten(0, -2), grad.flatten(0, -2)
        grad_x = torch.empty_like(tokens)
        is_trained = any(ctx.needs_input_grad[3:])
        sums = layer.zeros() if is_trained else None
        for rows in _blocks(len(tokens), layer.down_weight.shape[1]):
            normed, mean, rstd = layer.norm(tokens[rows], ctx.eps)
            value, gate = [y[rows] for y in kept] or layer.project(normed, ())
            grad_pair = _backward_of_gating(value, gate, grads[rows], layer, sums)
            grad_normed = _backward_of_projection(normed, grad_pair, layer, sums)
            through_norm, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
                grad_normed,
                tokens[rows],
                layer.norm_weight.shape,
                mean,
                rstd,
                layer.norm_weight,
                layer.norm_bias,
                [True, is_trained, is_trained],
            )
            torch.add(grads[rows], through_norm, out=grad_x[rows])
            if sums is not None:
                sums.norm_weight.add_(of_weight)
                sums.norm_bias.add_(of_bias)
        grads_of_weights = (None,) * len(layer) if sums is None else (y.to(x.dtype) for y in sums)
        return grad_x.view_as(x), None, None, *grads_of_weights


def _backward_of_gating(
    value: Tensor,
    gate: Tensor,
    grad: Tensor,
    layer: FeedForwardWeights,
    sums: FeedForwardWeights | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of values and gates; add those of the last layer's weights."""
    activated = F.gelu(gate)
    grad_hidden = grad @ layer.down_weight
    grad_value = grad_hidden * activated
    if sums is not None:
        _add_product(sums.down_weight, grad.mT, activated.mul_(value))
        sums.down_bias.add_(grad.sum(0))
    return grad_value, torch.ops.aten.gelu_backward(grad_hidden.mul_(value), gate)


def _backward_of_projection(
    normed: Tensor,
    grad_pair: tuple[Tensor, Tensor],
    layer: FeedForwardWeights,
    sums: FeedForwardWeights | None,
) -> Tensor:
    """Return the gradient of the normed tokens; add those of the first layer's weights."""
    of_value, of_gate = layer.up_weight.chunk(2)
    result = (grad_pair[0] @ of_value).addmm_(grad_pair[1], of_gate)
    if sums is not None:
        for grad, weight, bias in zip(
            grad_pair, sums.up_weight.chunk(2), sums.up_bias.chunk(2), strict=True
        ):
            _add_product(weight, grad.mT, normed)
            bias.add_(grad.sum(0))
    return result


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _blocks(num_tokens: int, hidden: int) -> Iterator[slice]:
    step = max(_MIN_TOKENS, _BLOCK_NUMBERS // hidden)
    return (slice(start, start + step) for start in range(0, num_tokens, step))
