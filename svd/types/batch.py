"""Tensors that travel together in memory: cached clips, and what a denoiser is conditioned on.

Axis letters: b clips, t frames, c channels, h w latent size, s tokens, d token width, a width
of the conditioning vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
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

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Conditioning":
        """Return a copy on a device; floating tensors also in a dtype, if one is given."""
        return Conditioning(
            context=self.context.to(device, dtype),
            vector=self.vector.to(device, dtype),
            cond_latents=None if self.cond_latents is None else self.cond_latents.to(device, dtype),
            image_only=None if self.image_only is None else self.image_only.to(device),
        )

    def select(self, index: slice | Sequence[int]) -> "Conditioning":
        """Return the entries of some clips, in the order given."""
        picked = index if isinstance(index, slice) else list(index)
        return Conditioning(
            context=self.context[picked],
            vector=self.vector[picked],
            cond_latents=None if self.cond_latents is None else self.cond_latents[picked],
            image_only=None if self.image_only is None else self.image_only[picked],
        )

    def repeat(self, times: int) -> "Conditioning":
        """Return each clip's entry `times` times in a row: a a b b for two clips and times=2."""
        return self.select([i for i in range(self.batch_size) for _ in range(times)])

    def unconditional(self) -> "Conditioning":
        """Return the null condition of guidance: zero tokens, zero cond_latents, same vector.

        Source: the release's sampler zeroes both image embedders and keeps the added ids.
        """
        zeros = None if self.cond_latents is None else torch.zeros_like(self.cond_latents)
        return Conditioning(
            context=torch.zeros_like(self.context),
            vector=self.vector,
            cond_latents=zeros,
            image_only=self.image_only,
        )

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Return the parts as one batch, e.g. unconditional and conditional for one pass.

        Raises:
            ConfigError: Some parts have cond_latents or image_only and others have not.
        """
        return Conditioning(
            context=torch.cat([part.context for part in parts]),
            vector=torch.cat([part.vector for part in parts]),
            cond_latents=_cat_optional("cond_latents", [part.cond_latents for part in parts]),
            image_only=_cat_optional("image_only", [part.image_only for part in parts]),
        )


def _cat_optional(name: str, tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    if not present:
        return None
    if len(present) < len(tensors):
        raise ConfigError(
            f"cannot batch conditioning: {name} is in {len(present)} of {len(tensors)} parts"
        )
    return torch.cat(present)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBatch:
    """Cached clips as the stream yields them: b windows of t frames.

    Attributes:
        mean: Mean of the autoencoder's posterior, NOT multiplied by the latent scale.
        logvar: Log variance of it.
        cond_frame: Frame 0 as 0..255, before noise and autoencoder.
        image_embeds: Embedding of the clean frame 0.
        last_embeds: Embedding of the clean last frame; None unless it is the first of a stored
            block in every window.
        poses: Degrees above the object's equator, and around it since frame 0; None unless the
            camera of every window is known.
        fps: True frames per second of the t frames (the model is told fps - 1).
        motion_bucket_id: 0..255.
        captions: One text per window; "" if the clip has none.
        clip_ids: Which clip each window is from.
        start_frames: The stored frame of the clip that is frame 0 here.
        positions: Place of each window in the global stream, equal on any number of ranks.
        image_only: These are pictures of a mixed stream: no temporal layer may act.
    """

    mean: Float[Tensor, "b t c h w"]
    logvar: Float[Tensor, "b t c h w"]
    cond_frame: UInt8[Tensor, "b 3 H W"]
    image_embeds: Float[Tensor, "b 1 d"]
    last_embeds: Float[Tensor, "b 1 d"] | None = None
    poses: Float[Tensor, "b t 2"] | None = None
    fps: Float[Tensor, " b"]
    motion_bucket_id: Int64[Tensor, " b"]
    captions: tuple[str, ...]
    clip_ids: tuple[str, ...]
    start_frames: tuple[int, ...]
    positions: tuple[int, ...]
    image_only: bool

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def num_frames(self) -> int:
        """Frames per window."""
        return self.mean.shape[1]

    def to(self, device: torch.device | str) -> "LatentBatch":
        """Return the batch with its tensors on a device."""
        return self._on_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, start: int, stop: int) -> "LatentBatch":
        """Return windows [start, stop), e.g. one micro-batch."""
        return replace(
            self._on_tensors(lambda tensor: tensor[start:stop]),
            captions=self.captions[start:stop],
            clip_ids=self.clip_ids[start:stop],
            start_frames=self.start_frames[start:stop],
            positions=self.positions[start:stop],
        )

    def _on_tensors(self, change: Callable[[Tensor], Tensor]) -> "LatentBatch":
        return replace(
            self,
            mean=change(self.mean),
            logvar=change(self.logvar),
            cond_frame=change(self.cond_frame),
            image_embeds=change(self.image_embeds),
            last_embeds=None if self.last_embeds is None else change(self.last_embeds),
            poses=None if self.poses is None else change(self.poses),
            fps=change(self.fps),
            motion_bucket_id=change(self.motion_bucket_id),
        )
