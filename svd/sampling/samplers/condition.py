"""What a picture or a prompt tells the denoiser."""

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from svd.config.sampling import SamplingConfig
from svd.errors import ConfigError
from svd.models.networks.conditioner import add_pose, added_ids, embed_added_time_ids, mask_between
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.decode import to_pixels
from svd.sampling.samplers.noise import NoiseSource
from svd.types.batch import Conditioning


def condition_on_image(
    components: Components,
    cond_frames: UInt8[Tensor, "b H W 3"],
    *,
    config: SamplingConfig,
    noise: NoiseSource,
) -> Conditioning:
    """Return what image-to-video knows: CLIP embedding, noised frame's latents, added ids.

    The noise of cond_aug is added to pixels, before the autoencoder, and the CLIP embedding is of
    the clean frame. Source: SVD paper, section 4.3, and svd.yaml of the release.
    """
    if components.image_encoder is None:
        raise ConfigError("this model takes a prompt, not a picture: it has no image encoder")
    if components.denoiser.config.unet.mask_embedding is not None:
        raise ConfigError("this model puts frames between others: give it a video, not a picture")
    pixels = to_pixels(cond_frames).to(components.device)
    with components.at_work(components.image_encoder):
        context = components.image_encoder.encode(pixels).float()
    augmented = pixels + config.cond_aug * noise.draw(pixels.shape[1:], pixels.device)
    cond_latents = repeat(
        components.encode_frame(augmented), "b c h w -> b t c h w", t=config.num_frames
    )
    vector = _vector(components, config, cond_aug=config.cond_aug, batch_size=len(pixels))
    return Conditioning(
        context=context,
        vector=_with_orbit(components, config, vector) if components.pose else vector,
        cond_latents=cond_latents,
        image_only=_image_only(context, config),
    )


def condition_on_ends(
    components: Components,
    first: UInt8[Tensor, "b H W 3"],
    last: UInt8[Tensor, "b H W 3"],
    *,
    config: SamplingConfig,
    noise: NoiseSource,
) -> Conditioning:
    """Return what interpolation knows: both embeddings, both ends' noised latents, added ids.

    The noise of cond_aug is added to latents of unit variance, as in training
    (`svd.training.objective.objectives.Interpolation`). Source: SVD paper, appendix D.5.
    """
    if components.image_encoder is None:
        raise ConfigError("this model takes a prompt, not frames: it has no image encoder")
    pixels = [to_pixels(frames).to(components.device) for frames in (first, last)]
    with components.at_work(components.image_encoder):
        context = torch.cat([components.image_encoder.encode(end).float() for end in pixels], dim=1)
    ends = torch.stack([components.encode_frame(end) for end in pixels], dim=1)
    ends = components.latent_scale * ends
    ends = ends + config.cond_aug * noise.draw(ends.shape[1:], ends.device)
    vector = _vector(components, config, cond_aug=config.cond_aug, batch_size=len(first))
    known = mask_between(ends, num_frames=config.num_frames)
    return Conditioning(context=context, vector=vector, cond_latents=known)


def condition_on_text(
    components: Components, prompts: Sequence[str], *, config: SamplingConfig
) -> Conditioning:
    """Return what text-to-video knows: the prompt's tokens and the added ids."""
    if components.text_encoder is None:
        raise ConfigError("this model takes a picture, not a prompt: it has no text encoder")
    with components.at_work(components.text_encoder):
        context = components.text_encoder.encode(prompts).float()
    vector = _vector(components, config, cond_aug=0.0, batch_size=len(prompts))
    return Conditioning(context=context, vector=vector, image_only=_image_only(context, config))


def _image_only(
    context: Float[Tensor, "b s d"], config: SamplingConfig
) -> Bool[Tensor, " b"] | None:
    """Return what keeps temporal layers out of stills, as training does; None for videos."""
    if config.num_frames > 1:
        return None
    return torch.ones(len(context), dtype=torch.bool, device=context.device)


def _with_orbit(
    components: Components, config: SamplingConfig, vector: Float[Tensor, "b a"]
) -> Float[Tensor, "b t p"]:
    """Return the vector with the angles of a whole turn at one height, as training tells them."""
    azimuth = 360 * torch.arange(config.num_frames, device=vector.device) / config.num_frames
    poses = torch.stack([torch.full_like(azimuth, config.elevation_deg), azimuth], dim=-1)
    return add_pose(
        vector,
        repeat(poses, "t k -> b t k", b=len(vector)),
        told=components.pose,
        width=components.denoiser.config.unet.added_id_dim,
    )


def _vector(
    components: Components, config: SamplingConfig, *, cond_aug: float, batch_size: int
) -> Float[Tensor, "b a"]:
    unet = components.denoiser.config.unet
    num_ids = unet.added_cond_dim // unet.added_id_dim - len(components.pose)
    moves = 0 if config.num_frames == 1 else 1  # a still has neither rate nor motion
    values = (moves * (config.fps - 1), moves * config.motion_bucket_id, cond_aug)
    columns = (torch.full((batch_size,), float(v), device=components.device) for v in values)
    ids = added_ids(*columns)
    if num_ids not in {2, 3}:
        raise ConfigError(
            f"the model takes {num_ids} added ids, not (fps, motion) or (fps, motion, cond_aug): "
            "it cannot be sampled from a picture or a prompt alone"
        )
    return embed_added_time_ids(ids[:, :num_ids], width=unet.added_id_dim)
