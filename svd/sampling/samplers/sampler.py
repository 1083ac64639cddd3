"""From a picture or a prompt to frames: the two samplers, and the loop both share."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.config.sampling import GuidanceConfig, SamplingConfig, ScheduleConfig, SolverConfig
from svd.errors import ConfigError
from svd.models.networks.streamed_decoder import StreamedDecoder
from svd.sampling.samplers.adapters import set_frames
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.condition import condition_on_image, condition_on_text
from svd.sampling.samplers.decode import decode_in_chunks, to_frames
from svd.sampling.samplers.guidance import ConditionedDenoiser, build_guided, guidance_scales
from svd.sampling.samplers.noise import NoiseSource
from svd.sampling.samplers.schedule import build_sigmas
from svd.sampling.samplers.solver import OnStep, solve
from svd.types.batch import Conditioning

Frames = UInt8[Tensor, "b t H W 3"]
MakeNoise = Callable[[Sequence[int], int], NoiseSource]  # (seeds, segment) -> noise


def _nothing() -> None:
    """Do nothing after a step."""


def sample_latents(
    denoiser: ConditionedDenoiser,
    conditioning: Conditioning,
    unconditional: Conditioning,
    *,
    shape: tuple[int, int, int, int],
    schedule: ScheduleConfig,
    solver: SolverConfig,
    guidance: GuidanceConfig,
    noise: NoiseSource,
    on_step: OnStep = _nothing,
) -> Float[Tensor, "b t c h w"]:
    """Draw noise and walk it down the schedule; return latents times the latent scale.

    Args:
        denoiser: The model.
        conditioning: One entry per sample.
        unconditional: The null condition, likewise.
        shape: Frames, channels, height and width of one sample's latents.
        schedule: Noise levels.
        solver: How to step between them.
        guidance: One scale per frame.
        noise: One generator per sample.
        on_step: Called after each solver step.

    Raises:
        ConfigError: The result is not finite.
    """
    device = conditioning.context.device
    sigmas = build_sigmas(schedule)
    # Data of unit variance under noise of sigma_max; the release starts from the same.
    start_std = float((1 + sigmas[0].double() ** 2).sqrt())
    denoise = build_guided(
        denoiser,
        conditioning,
        unconditional,
        scales=guidance_scales(guidance, shape[0]),
        passes=guidance.passes,
    )
    start = noise.draw(shape, device) * start_std
    latents = solve(denoise, start, sigmas, config=solver, noise=noise, on_step=on_step)
    if not bool(torch.isfinite(latents).all()):
        raise ConfigError(
            "the sample is not finite: half precision overflowed (try precision bf16 or fp32), "
            "the guidance scale is far too large, or the weights are broken"
        )
    return latents


def _latent_shape(components: Components, config: SamplingConfig) -> tuple[int, int, int, int]:
    components.check_size(config.height, config.width)
    factor = components.autoencoder.config.downsampling
    channels = components.latent_channels
    return config.num_frames, channels, config.height // factor, config.width // factor


def _finish(
    components: Components, latents: Float[Tensor, "b t c h w"], config: SamplingConfig
) -> Frames:
    """Decode one video at a time, so that the batch does not set the memory."""
    with components.at_work(components.decoder):
        pixels = [
            _decode(components, one[None] / components.latent_scale, config) for one in latents
        ]
    return to_frames(torch.cat(pixels))


def _decode(
    components: Components, latents: Float[Tensor, "1 t c h w"], config: SamplingConfig
) -> Float[Tensor, "1 t 3 H W"]:
    """Return one video's pixels on the CPU."""
    if config.decode_mode == "whole-clip" and components.temporal_decoder is not None:
        decode = StreamedDecoder(
            components.temporal_decoder, frames_at_once=config.decode_chunk_size
        )
        weight = components.temporal_decoder.last_layer.weight
        return decode(latents[0].to(weight.dtype)).float()[None]
    return decode_in_chunks(
        components.decode_clip,
        latents,
        chunk_size=config.decode_chunk_size,
        overlap=config.decode_overlap,
    )


def sample_frames(
    components: Components,
    conditioning: Conditioning,
    unconditional: Conditioning,
    *,
    config: SamplingConfig,
    noise: NoiseSource,
    on_step: OnStep,
    first_frame: int = 0,
) -> Frames:
    """Sample and decode; first_frame is where in the whole video this stretch begins."""
    unet, num_frames = components.denoiser.unet, config.num_frames
    set_frames(unet, components.adapters, first_frame=first_frame, num_frames=num_frames)
    with components.at_work(components.denoiser):
        latents = sample_latents(
            components.denoiser,
            conditioning,
            unconditional,
            shape=_latent_shape(components, config),
            schedule=config.schedule,
            solver=config.solver,
            guidance=config.guidance,
            noise=noise,
            on_step=on_step,
        )
    return _finish(components, latents, config)


@torch.no_grad()
def image_to_video(
    components: Components,
    cond_frames: UInt8[Tensor, "b H W 3"],
    *,
    config: SamplingConfig,
    seeds: Sequence[int],
    num_segments: int = 1,
    on_step: OnStep = _nothing,
    make_noise: MakeNoise = lambda seeds, segment: NoiseSource.from_seeds(seeds, segment=segment),
) -> Frames:
    """Return a video for each conditioning frame; frame 0 resembles it.

    A video depends on its frame and its seed, not on batch_size or its neighbours.

    Args:
        components: An image-to-video model.
        cond_frames: Pictures of config.height x config.width.
        config: How to sample.
        seeds: One per picture.
        num_segments: More than 1 continues from the last frame, which the next segment repeats
            as its first; that one is left out: num_segments * (num_frames - 1) + 1 frames.
        on_step: Called after each solver step of each batch.
        make_noise: Where noise comes from.

    Raises:
        ConfigError: Sizes that do not divide, or a model that takes no picture.
    """
    _check_pictures(cond_frames, config, seeds)
    _latent_shape(components, config)
    parts = []
    for start in range(0, len(seeds), config.batch_size):
        some = slice(start, start + config.batch_size)
        last, segments = cond_frames[some], []
        for segment in range(num_segments):
            noise = make_noise(seeds[some], segment)
            conditioning = condition_on_image(components, last, config=config, noise=noise)
            frames = sample_frames(
                components,
                conditioning,
                conditioning.unconditional(),
                config=config,
                noise=noise,
                on_step=on_step,
                first_frame=segment * (config.num_frames - 1),
            )
            segments.append(frames if segment == 0 else frames[:, 1:])
            last = frames[:, -1]
        parts.append(torch.cat(segments, dim=1))
    return torch.cat(parts)


def _check_pictures(
    cond_frames: UInt8[Tensor, "b H W 3"], config: SamplingConfig, seeds: Sequence[int]
) -> None:
    if len(cond_frames) != len(seeds) or not seeds:
        raise ConfigError(f"{len(cond_frames)} conditioning frames for {len(seeds)} seeds")
    if cond_frames.shape[1:3] != (config.height, config.width):
        raise ConfigError(
            f"conditioning frames of {cond_frames.shape[2]}x{cond_frames.shape[1]} pixels for "
            f"width={config.width}, height={config.height}"
        )


@torch.no_grad()
def text_to_video(
    components: Components,
    prompts: Sequence[str],
    *,
    config: SamplingConfig,
    seeds: Sequence[int],
    negative_prompt: str = "",
    on_step: OnStep = _nothing,
    make_noise: MakeNoise = lambda seeds, segment: NoiseSource.from_seeds(seeds, segment=segment),
) -> Frames:
    """Return a video for each prompt.

    Args:
        components: A text-to-video model.
        prompts: One per video.
        config: How to sample; cond_aug is not used.
        seeds: One per prompt.
        negative_prompt: What guidance leads away from; the empty text is what training puts in
            the place of a dropped caption.
        on_step: Called after each solver step of each batch.
        make_noise: Where noise comes from.

    Raises:
        ConfigError: Sizes that do not divide, or a model that takes no prompt.
    """
    if len(prompts) != len(seeds) or not seeds:
        raise ConfigError(f"{len(prompts)} prompts for {len(seeds)} seeds")
    _latent_shape(components, config)
    parts = []
    for start in range(0, len(seeds), config.batch_size):
        some = slice(start, start + config.batch_size)
        conditioning = condition_on_text(components, prompts[some], config=config)
        against = [negative_prompt] * conditioning.batch_size
        unconditional = condition_on_text(components, against, config=config)
        parts.append(
            sample_frames(
                components,
                conditioning,
                unconditional,
                config=config,
                noise=make_noise(seeds[some], 0),
                on_step=on_step,
            )
        )
    return torch.cat(parts)
