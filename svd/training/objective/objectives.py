"""What a stage trains the denoiser to do: from a batch of cached clips to a conditioning."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from svd.config.training import DropoutConfig, PhaseConfig
from svd.errors import ConfigError
from svd.models.networks.autoencoder import Moments
from svd.models.networks.conditioner import add_pose, added_ids, embed_added_time_ids, mask_between
from svd.training.objective.noise import DrawKey, Purpose, draw_cond_aug
from svd.types.batch import Conditioning, LatentBatch
from svd.types.orbit import PoseAngle


@runtime_checkable
class TextTower(Protocol):
    """What text-to-video asks of a text encoder."""

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "b s d"]:
        """Return the tokens of each prompt."""


@runtime_checkable
class FrameEncoder(Protocol):
    """What image-to-video asks of an autoencoder."""

    def encode(self, pixels: Float[Tensor, "n c H W"]) -> Moments:
        """Return the latents' distribution, NOT multiplied by the latent scale."""


@runtime_checkable
class Objective(Protocol):
    """How a batch is conditioned."""

    def condition(self, batch: LatentBatch, key: DrawKey, *, dropout: bool) -> Conditioning:
        """Return what the denoiser may know of each clip.

        Args:
            batch: Cached clips, on the device of training.
            key: Names the draws of this batch.
            dropout: Whether some clips lose their condition, as in training.
        """


class TextToVideo:
    """Captions as context; the image stage is this with windows of one frame.

    A dropped caption is the empty text, which is what Stable Diffusion 2.1 calls unconditional.
    """

    def __init__(self, phase: PhaseConfig, *, text_encoder: TextTower, id_width: int) -> None:
        self._dropout = phase.dropout
        self._text_encoder = text_encoder
        self._id_width = id_width

    def condition(self, batch: LatentBatch, key: DrawKey, *, dropout: bool) -> Conditioning:
        """Return text tokens and the ids of rate and motion."""
        captions = list(batch.captions)
        if dropout:
            share = self._dropout.context + self._dropout.both
            dropped = key.uniform(Purpose.DROPOUT) < share
            captions = [
                "" if lost else caption
                for caption, lost in zip(captions, dropped.tolist(), strict=True)
            ]
        return Conditioning(
            context=self._text_encoder.encode(captions).to(batch.mean.device),
            vector=_vector(batch, torch.zeros_like(batch.fps), self._id_width),
        )


class ImageToVideo:
    """The first frame as embedding and, noised in pixels and encoded anew, as latents."""

    def __init__(self, phase: PhaseConfig, *, autoencoder: FrameEncoder, id_width: int) -> None:
        self._dropout = phase.dropout
        self._cond_aug = phase.cond_aug
        self._autoencoder = autoencoder
        self._id_width = id_width

    def condition(self, batch: LatentBatch, key: DrawKey, *, dropout: bool) -> Conditioning:
        """Return image embedding, conditioning latents and the ids of rate, motion and noise."""
        device = batch.mean.device
        cond_aug = draw_cond_aug(self._cond_aug, key).to(device)
        context, latents = batch.image_embeds.float(), self._encode(batch, cond_aug, key)
        if dropout:
            keeps_context, keeps_latents = draw_kept(self._dropout, key)
            context = context * keeps_context.to(device)[:, None, None]
            latents = latents * keeps_latents.to(device)[:, None, None, None]
        return Conditioning(
            context=context,
            vector=_vector(batch, cond_aug, self._id_width),
            cond_latents=repeat(latents, "b c h w -> b t c h w", t=batch.num_frames),
        )

    @torch.no_grad()
    def _encode(
        self, batch: LatentBatch, cond_aug: Float[Tensor, " b"], key: DrawKey
    ) -> Float[Tensor, "b c h w"]:
        """Return the mode of the noised first frame's latents, NOT multiplied by the scale.

        Source: SVD paper, section 4.3 and the release's embedders.
        """
        pixels = batch.cond_frame.float() / 127.5 - 1
        noise = key.normal(Purpose.COND_NOISE, tuple(pixels.shape[1:])).to(pixels.device)
        noised = pixels + rearrange(cond_aug, "b -> b 1 1 1") * noise
        return self._autoencoder.encode(noised).mean.float()


class Orbit:
    """Image-to-video that is told, for every frame, where the camera stands."""

    def __init__(
        self,
        phase: PhaseConfig,
        *,
        autoencoder: FrameEncoder,
        id_width: int,
        pose: Sequence[PoseAngle],
    ) -> None:
        self._image_to_video = ImageToVideo(phase, autoencoder=autoencoder, id_width=id_width)
        self._id_width = id_width
        self._pose = pose

    def condition(self, batch: LatentBatch, key: DrawKey, *, dropout: bool) -> Conditioning:
        """Return what image-to-video knows, with the camera's angles in the vector.

        Raises:
            ConfigError: The data do not know their camera.
        """
        plain = self._image_to_video.condition(batch, key, dropout=dropout)
        if not self._pose:
            return plain
        if batch.poses is None:
            raise ConfigError(
                "the orbits do not know their camera (filmed objects): set "
                "finetune-multiview.pose: []"
            )
        poses = batch.poses.to(plain.vector)
        vector = add_pose(plain.vector, poses, told=self._pose, width=self._id_width)
        return replace(plain, vector=vector)


class Interpolation:
    """Both ends as embeddings and, noised, as latents; what lies between is masked.

    Source: SVD paper, section 4.4 and appendix D.5.
    """

    def __init__(self, phase: PhaseConfig, *, latent_scale: float, id_width: int) -> None:
        self._dropout = phase.dropout
        self._cond_aug = phase.cond_aug
        self._latent_scale = latent_scale
        self._id_width = id_width

    def condition(self, batch: LatentBatch, key: DrawKey, *, dropout: bool) -> Conditioning:
        """Return both embeddings, both ends' latents with a mask, and the ids."""
        if batch.last_embeds is None:
            raise ConfigError(
                "interpolation needs an embedding of each window's last frame: (num_frames - 1) "
                "times a frame stride must be a multiple of encode.block_frames"
            )
        device = batch.mean.device
        cond_aug = draw_cond_aug(self._cond_aug, key).to(device)
        ends = self._latent_scale * torch.stack([batch.mean[:, 0], batch.mean[:, -1]], dim=1)
        noise = key.normal(Purpose.COND_NOISE, tuple(ends.shape[1:])).to(device)
        ends = ends.float() + rearrange(cond_aug, "b -> b 1 1 1 1") * noise
        context = torch.cat([batch.image_embeds, batch.last_embeds], dim=1).float()
        known = mask_between(ends, num_frames=batch.num_frames)
        if dropout:
            keeps_context, keeps_latents = draw_kept(self._dropout, key)
            context = context * keeps_context.to(device)[:, None, None]
            known = known * keeps_latents.to(device)[:, None, None, None, None]
        return Conditioning(
            context=context,
            vector=_vector(batch, cond_aug, self._id_width),
            cond_latents=known,
        )


def draw_kept(share: DropoutConfig, key: DrawKey) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
    """Return which clips keep their context and which their latents; one draw decides."""
    draw = key.uniform(Purpose.DROPOUT)
    both = draw < share.both
    context = both | (draw < share.both + share.context)
    latents = both | (
        (draw >= share.both + share.context)
        & (draw < share.both + share.context + share.cond_latents)
    )
    return ~context, ~latents


def _vector(batch: LatentBatch, cond_aug: Float[Tensor, " b"], width: int) -> Float[Tensor, "b a"]:
    """Return the embedded ids; a still has neither rate nor motion, so both ids are 0."""
    moves = 0.0 if batch.num_frames == 1 else 1.0
    ids = added_ids(
        fps_id=moves * (batch.fps.float() - 1),
        motion_bucket_id=moves * batch.motion_bucket_id.float(),
        cond_aug=cond_aug,
    )
    return embed_added_time_ids(ids, width=width)


def sample_latents(
    batch: LatentBatch, key: DrawKey, *, latent_scale: float
) -> Float[Tensor, "b t c h w"]:
    """Return latents drawn from the cached posterior, scaled to about unit variance."""
    noise = key.normal(Purpose.POSTERIOR, tuple(batch.mean.shape[1:])).to(batch.mean.device)
    std = (0.5 * batch.logvar.float()).exp()
    return latent_scale * (batch.mean.float() + std * noise)
