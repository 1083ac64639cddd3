"""The UNet's transformers: attention inside each frame, then over time at each position.

Tokens are "b t n c" (n positions of a frame), a view of channels-last frames.
Source: Blattmann 2023 (Video LDM), Section 3.1, as configured in the release.
"""

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from svd.models.networks.cpu.choice import takes_cpu_paths
from svd.models.networks.feed_forward import FeedForward, add_feed_forward
from svd.models.networks.layers import Merge, call_or_recompute, embedding_mlp, zero
from svd.models.networks.norm_silu import group_norm

# CUDA's fused attention kernels put the batch on a grid axis of at most 65,535 blocks
# (pytorch issues 142228 and 146704); longer batches are cut.
MAX_ATTENTION_ROWS = 65535
# On a CPU the fused kernel takes twice the time of plain products for the sequences over time.
FEW_KEYS = 32


def attend(
    q: Float[Tensor, "r h n d"], k: Float[Tensor, "r h s d"], v: Float[Tensor, "r h s d"]
) -> Float[Tensor, "r h n d"]:
    """Return softmax(q k^T / sqrt(d)) v for any number of rows."""
    if k.shape[2] <= FEW_KEYS and takes_cpu_paths(q):
        return torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, dim=-1) @ v
    if q.shape[0] <= MAX_ATTENTION_ROWS:
        return F.scaled_dot_product_attention(q, k, v)
    rows = [slice(i, i + MAX_ATTENTION_ROWS) for i in range(0, q.shape[0], MAX_ATTENTION_ROWS)]
    parts = [F.scaled_dot_product_attention(q[row], k[row], v[row]) for row in rows]
    return torch.cat(parts)


class Projection(nn.Linear):
    """A linear layer of an attention; the seam at which adapters are put in."""

    def forward(
        self, x: Float[Tensor, "*n i"], shift: Float[Tensor, " o"] | None = None
    ) -> Float[Tensor, "*n o"]:
        """Project; shift is added to the output, at no cost where there is a bias."""
        if shift is None:
            return F.linear(x, self.weight, self.bias)
        return F.linear(x, self.weight, shift if self.bias is None else self.bias + shift)


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves or to a context."""

    def __init__(self, dim: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = dim // head_dim
        self.to_q = Projection(dim, dim, bias=False)
        self.to_k = Projection(context_dim or dim, dim, bias=False)
        self.to_v = Projection(context_dim or dim, dim, bias=False)
        self.to_out = nn.Sequential(Projection(dim, dim))

    def within_frames(
        self, x: Float[Tensor, "b t n c"], shift: Float[Tensor, " c"] | None = None
    ) -> Float[Tensor, "b t n c"]:
        """Attend among the positions of each frame; shift is added to the output."""
        split = "b t n (h d) -> (b t) h n d"
        q, k, v = (rearrange(p(x), split, h=self.heads) for p in self._projections())
        out = rearrange(attend(q, k, v), "(b t) h n d -> b t n (h d)", t=x.shape[1])
        return self._output(out, shift)

    def over_time(
        self, x: Float[Tensor, "b t n c"], shift: Float[Tensor, " c"] | None = None
    ) -> Float[Tensor, "b t n c"]:
        """Attend among the frames at each position; shift is added to the output.

        One call per clip: only within a clip do positions lie at one stride, so that heads and
        positions are views. Fused kernels return the queries' layout, so the result is a view too.
        """
        q, k, v = (projection(x) for projection in self._projections())
        clips = [
            rearrange(attend(*self._by_position(q, k, v, clip)), "n h t d -> 1 t n (h d)")
            for clip in range(len(x))
        ]
        out = clips[0] if len(clips) == 1 else torch.cat(clips)
        return self._output(out, shift)

    def to_context(
        self, x: Float[Tensor, "b t n c"], context: Float[Tensor, "b s e"]
    ) -> Float[Tensor, "b t n c"]:
        """Attend to the clip's context.

        Queries do not see each other, so all frames' queries of a clip are one long sequence and
        keys and values are projected once per clip.
        """
        q = rearrange(self.to_q(x), "b t n (h d) -> b h (t n) d", h=self.heads)
        k, v = (
            rearrange(p(context), "b s (h d) -> b h s d", h=self.heads)
            for p in (self.to_k, self.to_v)
        )
        out = rearrange(attend(q, k, v), "b h (t n) d -> b t n (h d)", t=x.shape[1])
        return self._output(out, None)

    def to_single_token(self, context: Float[Tensor, "b 1 e"]) -> Float[Tensor, "b c"]:
        """Return what every query gets from a context of one token.

        Exact: the softmax over one key is 1 whatever the query, so queries and keys play no part
        and their weights have no gradient.
        """
        result: Tensor = self.to_out(self.to_v(context[:, 0]))
        return result

    def _by_position(self, q: Tensor, k: Tensor, v: Tensor, clip: int) -> tuple[Tensor, ...]:
        """View one clip's frames as the sequences of its positions."""
        own = (q, k, v) if len(q) == 1 else (y.narrow(0, clip, 1) for y in (q, k, v))
        return tuple(rearrange(y, "1 t n (h d) -> n h t d", h=self.heads) for y in own)

    def _projections(self) -> tuple[Projection, Projection, Projection]:
        return self.to_q, self.to_k, self.to_v

    def _output(self, x: Tensor, shift: Tensor | None) -> Tensor:
        projected: Tensor = cast("Projection", self.to_out[0])(x, shift)
        return projected


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context and feed-forward, each on normed input."""

    def __init__(self, dim: int, head_dim: int, context_dim: int) -> None:
        super().__init__()
        self.attn1 = Attention(dim, head_dim)
        self.ff = FeedForward(dim)
        self.attn2 = Attention(dim, head_dim, context_dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.keep_activations = True

    def self_attention(
        self, x: Float[Tensor, "b t n c"], shift: Float[Tensor, " c"] | None
    ) -> Float[Tensor, "b t n c"]:
        """Attend among the positions of each frame."""
        return self.attn1.within_frames(self.norm1(x), shift)

    def forward(
        self, x: Float[Tensor, "b t n c"], context: Float[Tensor, "b s e"]
    ) -> Float[Tensor, "b t n c"]:
        """Return the tokens after all three residual layers."""
        if context.shape[1] > 1:
            x = x + self.self_attention(x, None)
            x = x + self.attn2.to_context(self.norm2(x), context)
        else:
            token = self.attn2.to_single_token(context)
            if len(token) == 1:  # one clip: the constant is a bias
                x = x + self.self_attention(x, token[0])
            else:
                x = x + self.self_attention(x, None)
                x = x + token[:, None, None, :]
        return self.feed_forward(x, self.norm3, self.ff)

    def feed_forward(
        self, x: Float[Tensor, "b t n c"], norm: nn.LayerNorm, layer: FeedForward
    ) -> Float[Tensor, "b t n c"]:
        """Add a feed-forward layer's output to its input."""
        return add_feed_forward(x, norm, layer, keep_activations=self.keep_activations)


class TemporalTransformerBlock(TransformerBlock):
    """The same over time, with one more feed-forward layer at the front."""

    def __init__(self, dim: int, head_dim: int, context_dim: int) -> None:
        super().__init__(dim, head_dim, context_dim)
        self.norm_in = nn.LayerNorm(dim)
        self.ff_in = FeedForward(dim)

    def self_attention(
        self, x: Float[Tensor, "b t n c"], shift: Float[Tensor, " c"] | None
    ) -> Float[Tensor, "b t n c"]:
        """Attend among the frames at each position."""
        return self.attn1.over_time(self.norm1(x), shift)

    def forward(
        self, x: Float[Tensor, "b t n c"], context: Float[Tensor, "b s e"]
    ) -> Float[Tensor, "b t n c"]:
        """Return the tokens after all four residual layers."""
        return super().forward(self.feed_forward(x, self.norm_in, self.ff_in), context)

    def start_as_identity(self) -> None:
        """Zero the last layer of every branch."""
        for layer in (self.ff_in.net[2], self.attn1.to_out, self.attn2.to_out, self.ff.net[2]):
            zero(layer)


class SpatioTemporalTransformer(nn.Module):
    """A spatial transformer block, then a temporal one of which a learned share is let through."""

    def __init__(
        self, channels: int, head_dim: int, context_dim: int, norm_groups: int, merge_logit: float
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, head_dim, context_dim)])
        self.proj_out = zero(nn.Linear(channels, channels))
        self.time_stack = nn.ModuleList([TemporalTransformerBlock(channels, head_dim, context_dim)])
        self.time_pos_embed = embedding_mlp(channels, channels, hidden_dim=4 * channels)
        self.time_mixer = Merge(merge_logit)
        self.keep_activations = True

    @property
    def channels(self) -> int:
        """Width of the tokens."""
        return self.proj_in.in_features

    def forward(
        self,
        x: Float[Tensor, "bt c h w"],
        context: Float[Tensor, "b s e"],
        frame_features: Float[Tensor, "t c"] | None,
        num_frames: int,
        image_only: Bool[Tensor, " b"] | None,
    ) -> Float[Tensor, "bt c h w"]:
        """Return the transformer's output for frames of all clips.

        Args:
            x: Frames of all clips.
            context: Tokens of each clip.
            frame_features: Sinusoids of the frame indices; None skips the temporal block.
            num_frames: Frames per clip.
            image_only: Clips whose frames are unrelated pictures.
        """

        def project(x: Tensor) -> Tensor:
            tokens = rearrange(group_norm(self.norm, x), "(b t) c h w -> b t (h w) c", t=num_frames)
            result: Tensor = self.proj_in(tokens)
            return result

        tokens = call_or_recompute(project, x, keep_activations=self.keep_activations)
        tokens = self.transformer_blocks[0](tokens, context)
        if frame_features is not None:
            positions = self.time_pos_embed(frame_features)
            time = self.time_stack[0](tokens + positions[:, None, :], context)
            weight = self.time_mixer(image_only).to(tokens.dtype)
            tokens = torch.lerp(tokens, time, weight[:, None, None, None])
        tokens = self.proj_out(tokens)
        frames: Tensor = rearrange(tokens, "b t (h w) c -> (b t) c h w", h=x.shape[2])
        return x + frames

    def start_as_identity(self) -> None:
        """Make the temporal block return its input, whatever the spatial weights are."""
        cast("TemporalTransformerBlock", self.time_stack[0]).start_as_identity()
        zero(self.time_pos_embed[2])
