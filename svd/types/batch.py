"""Tensors that travel together in memory: what a denoiser is conditioned on.

Axis letters: b clips, t frames, c channels, h w latent size, s tokens, d token width, a width
of the conditioning vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from svd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the denoiser knows beside the noisy latents; one entry per clip.

    Attributes:
        context: Text tokens, or the one CLIP image embedding, for cross-attention.
        vector: Embedded added ids (fps_id, motion_bucket_id, cond_aug); "b t a" where they
            differ per frame (orbits).
        cond_latents: Concatenated to the noisy latents, NOT multiplied by the latent scale;
            for interpolation its last channel is the mask. None for text-to-video.
        image_only: True where the frames of a clip are unrelated pictures, on which temporal
            layers must not act. None means False everywhere.
    """

    context: Float[Tensor, "b s d"]
    vector: Float[Tensor, "b *t a"]
    cond_latents: Float[Tensor, "b t c h w"] | None = None
    image_only: Bool[Tensor, " b"] | None = None

    @property
    def batch_size(self) -> int:
        """Number of clips."""
        return self.context.shape[0]

    def to(self, device: torch.device | str) -> Self:
        """Return the batch with its tensors on a device."""
        return self._on_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, start: int, stop: int) -> Self:
        """Return examples [start, stop), e.g. one micro-batch."""
        return replace(
            self._on_tensors(lambda tensor: tensor[start:stop]),
            captions=self.captions[start:stop],
            clip_ids=self.clip_ids[start:stop],
            start_frames=self.start_frames[start:stop],
            positions=self.positions[start:stop],
        )

    def _on_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            mean=change(self.mean),
            logvar=change(self.logvar),
            cond_frame=change(self.cond_frame),
            image_embeds=change(self.image_embeds),
            fps=change(self.fps),
            motion_bucket_id=change(self.motion_bucket_id),
        )
