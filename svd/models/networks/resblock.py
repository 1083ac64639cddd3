"""The UNet's residual block: a spatial block, a temporal block behind it, and their blend.

Source: Blattmann 2023 (Video LDM), Section 3.1, as configured in the release.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from svd.models.networks.cpu.norm_silu_convolution import NormSiluConvolution, keeps_input_only
from svd.models.networks.layers import (
    Merge,
    SpatialConv,
    TemporalConv,
    call_or_recompute,
    convolve,
    to_frames,
    to_time,
    zero,
)
from svd.models.networks.norm_silu import norm_silu


class Shifts(NamedTuple):
    """What the embedding adds inside one block; t is 1 where frames share their embedding."""

    spatial: Float[Tensor, "b t c"]
    temporal: Float[Tensor, "b t c"] | None  # None: temporal layers are skipped


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the embedding's shift in between if there is one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embed_dim: int | None,
        norm_groups: int,
        conv: Callable[[int, int], SpatialConv | TemporalConv],
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(norm_groups, in_channels), nn.SiLU(), conv(in_channels, out_channels)
        )
        if embed_dim is not None:
            self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embed_dim, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(norm_groups, out_channels),
            nn.SiLU(),
            nn.Identity(),  # the release's dropout, which is 0; it keeps the index of the next
            zero(conv(out_channels, out_channels)),
        )
        self.keep_activations = True

    @property
    def embedding(self) -> nn.Linear:
        """The projection from the activated embedding to this block's shift."""
        return cast("nn.Linear", self.emb_layers[1])

    def branch(
        self,
        x: Float[Tensor, "n c p q"],
        shift: Float[Tensor, "*r"] | None,
        weight: Float[Tensor, " 1"] | None = None,
    ) -> Float[Tensor, "n o p q"]:
        """Return what the block adds to its input.

        Args:
            x: Frames, or the time view.
            shift: The embedding's shift: "o" if x holds one clip, else shaped to broadcast;
                None if the block has no embedding.
            weight: Factor of the whole branch. It is applied to the last convolution's weights,
                which are few, so that neither pass multiplies or keeps activations for it.
        """
        first = cast("SpatialConv | TemporalConv", self.in_layers[2])
        last = cast("SpatialConv | TemporalConv", self.out_layers[3])
        bias = first.offset()
        if shift is not None and shift.ndim == 1:
            bias, shift = bias + shift, None
        hidden = self._half(cast("nn.GroupNorm", self.in_layers[0]), x, first.kernel(), bias)
        if shift is not None:
            hidden = hidden + shift
        kernel, bias = last.kernel(), last.offset()
        if weight is not None:
            kernel, bias = kernel * weight.to(kernel.dtype), bias * weight.to(bias.dtype)
        return self._half(cast("nn.GroupNorm", self.out_layers[0]), hidden, kernel, bias)

    def _half(self, norm: nn.GroupNorm, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        if keeps_input_only(x):
            convolved: Tensor = NormSiluConvolution.apply(
                x, norm.num_groups, norm.eps, norm.weight, norm.bias, kernel, bias
            )
            return convolved

        def half(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
            return convolve(norm_silu(norm, x), kernel, bias)

        return call_or_recompute(half, x, kernel, bias, keep_activations=self.keep_activations)


class VideoResBlock(ResBlock):
    """A spatial residual block, then a temporal one of which a learned share is let through.

    With w the temporal weight, spatial output s and temporal branch h(s), the release's blend
    (1 - w) s + w (s + h(s)) is s + w h(s).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embed_dim: int,
        norm_groups: int,
        merge_logit: float,
    ) -> None:
        super().__init__(in_channels, out_channels, embed_dim, norm_groups, SpatialConv)
        self.skip_connection = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )
        self.time_stack = ResBlock(out_channels, out_channels, embed_dim, norm_groups, TemporalConv)
        self.time_mixer = Merge(merge_logit)

    def forward(
        self,
        x: Float[Tensor, "bt c h w"],
        shifts: Shifts,
        num_frames: int,
        image_only: Bool[Tensor, " b"] | None,
    ) -> Float[Tensor, "bt o h w"]:
        """Return the block's output for frames of all clips."""
        x = self.skip_connection(x) + self.branch(x, _frame_shift(shifts.spatial, num_frames))
        if shifts.temporal is None:
            return x
        time = to_time(x, num_frames)
        shift = _clip_shift(shifts.temporal)
        weight = self.time_mixer(image_only)
        if image_only is None:
            time = time + self.time_stack.branch(time, shift, weight)
        else:
            branch = self.time_stack.branch(time, shift)
            time = torch.addcmul(time, branch, weight[:, None, None, None].to(time.dtype))
        return to_frames(time, x.shape[2])


def _frame_shift(shift: Float[Tensor, "b t c"], num_frames: int) -> Tensor:
    """Shape a shift for frames "(b t) c h w"; one clip's common shift stays a vector."""
    if shift.shape[:2] == (1, 1):
        return shift[0, 0]
    return shift.expand(-1, num_frames, -1).flatten(0, 1)[:, :, None, None]


def _clip_shift(shift: Float[Tensor, "b t c"]) -> Tensor:
    """Shape a shift for the time view "b c t (h w)"; one clip's common shift stays a vector."""
    if shift.shape[:2] == (1, 1):
        return shift[0, 0]
    return shift.transpose(1, 2)[:, :, :, None]
