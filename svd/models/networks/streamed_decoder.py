"""The temporal decoder layer by layer, a few frames at once: a whole clip's pixels, less memory.

Decoding a clip in chunks changes every frame a little, not only those at borders: the temporal
layers' group norms take their statistics over all frames that they see. Here each layer sees a few
frames at a time, statistics are those of the whole clip, and a convolution over time reads one
frame more on each side; activations between layers wait on the CPU.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from svd.models.networks.autoencoder import ResnetBlock, UpLevel
from svd.models.networks.layers import SpatialConv, TemporalConv
from svd.models.networks.norm_silu import norm_silu
from svd.models.networks.temporal_decoder import TemporalDecoder, VideoResnetBlock

Frames = Float[Tensor, "t c h w"]


class StreamedDecoder:
    """Decodes one clip with a temporal decoder."""

    def __init__(self, decoder: TemporalDecoder, *, frames_at_once: int) -> None:
        """Take a decoder.

        Args:
            decoder: On the device where it computes.
            frames_at_once: That one layer sees; memory only, up to rounding.
        """
        self._decoder = decoder
        self._step = frames_at_once
        self._device = decoder.last_layer.weight.device

    @torch.no_grad()
    def __call__(self, latents: Float[Tensor, "t c h w"]) -> Float[Tensor, "t 3 H W"]:
        """Return pixels on the CPU, about -1..1, of latents NOT multiplied by the latent scale."""
        decoder = self._decoder
        last = decoder.conv_out
        x = self._each(decoder.conv_in, latents.cpu())
        x = self._block(decoder.mid.block_1, x)
        x = self._each(decoder.mid.attn_1, x)
        x = self._block(decoder.mid.block_2, x)
        for level in reversed(decoder.up):
            x = self._level(cast("UpLevel", level), x)

        def to_pixels(frames: Tensor) -> Tensor:
            return SpatialConv.forward(last, norm_silu(decoder.norm_out, frames))

        x = self._each(to_pixels, x)
        time = decoder.last_layer
        return self._over_time(lambda frames: frames, x, time.kernel(), time.offset())

    def _level(self, level: UpLevel, x: Frames) -> Frames:
        for block in level.block:
            x = self._block(block, x)
        return x if level.upsample is None else self._each(level.upsample, x)

    def _block(self, module: nn.Module, x: Frames) -> Frames:
        """Return a block's output: that of each frame, and what its branch over time adds."""
        block = cast("VideoResnetBlock", module)
        x = self._each(lambda frames: ResnetBlock.forward(block, frames), x)
        branch, weight = block.time_stack, torch.sigmoid(block.mix_factor)
        first = cast("TemporalConv", branch.in_layers[2])
        second = cast("TemporalConv", branch.out_layers[3])
        hidden = self._over_time(
            self._activate(cast("nn.GroupNorm", branch.in_layers[0]), x),
            x,
            first.kernel(),
            first.offset(),
        )
        return x + self._over_time(
            self._activate(cast("nn.GroupNorm", branch.out_layers[0]), hidden),
            hidden,
            second.kernel() * weight,
            second.offset() * weight,
        )

    def _each(self, layer: Callable[[Tensor], Tensor], x: Frames) -> Frames:
        """Apply a layer that does not look over time."""
        return torch.cat(
            [layer(part.to(self._device)).cpu() for part in torch.split(x, self._step)]
        )

    def _activate(self, norm: nn.GroupNorm, x: Frames) -> Callable[[Frames], Frames]:
        """Return SiLU after a group norm whose statistics are those of all frames of x."""
        total = torch.zeros(2, norm.num_groups, dtype=torch.float64)
        for part in torch.split(x, self._step):
            groups = rearrange(part.double(), "t (g c) h w -> t g c h w", g=norm.num_groups)
            total[0] += groups.sum((0, 2, 3, 4))
            total[1] += groups.square().sum((0, 2, 3, 4))
        mean, square = total / (x.numel() / norm.num_groups)
        scale = (square - mean**2 + norm.eps).rsqrt().repeat_interleave(x.shape[1] // len(mean))
        shift = -mean.repeat_interleave(x.shape[1] // len(mean)) * scale
        gain = norm.weight * scale.to(norm.weight)
        bias = norm.bias + norm.weight * shift.to(norm.weight)
        return lambda frames: F.silu(frames * gain[:, None, None] + bias[:, None, None])

    def _over_time(
        self,
        before: Callable[[Frames], Frames],
        x: Frames,
        kernel: Float[Tensor, "o c 3 1"],
        bias: Float[Tensor, " o"],
    ) -> Frames:
        """Convolve over time what `before` makes of the frames; outside the clip are zeros."""
        parts = []
        for first in range(0, len(x), self._step):
            stop = min(first + self._step, len(x))
            low, high = max(0, first - 1), min(len(x), stop + 1)
            seen = before(x[low:high].to(self._device)).flatten(2).transpose(0, 1)
            missing = (0, 0, int(first == 0), int(stop == len(x)))
            out = F.conv2d(F.pad(seen, missing)[None], kernel, bias)[0]
            parts.append(rearrange(out, "c t (h w) -> t c h w", h=x.shape[2]).cpu())
        return torch.cat(parts)
