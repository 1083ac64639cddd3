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
