"""Classifier-free guidance with one scale per frame."""

from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from svd.config.sampling import GuidanceConfig
from svd.sampling.samplers.solver import Denoise
from svd.types.batch import Conditioning


@runtime_checkable
class ConditionedDenoiser(Protocol):
    """Estimates the clean latents; `svd.models.networks.denoiser.Denoiser` is the one we ship."""

    def __call__(
        self,
        noisy_latents: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, " b"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "b t c h w"]:
        """Return the denoised latents."""


def guidance_scales(config: GuidanceConfig, num_frames: int) -> Float[Tensor, " t"]:
    """Return the guidance scale of each frame.

    Source: the guiders of Stability-AI/generative-models; SVD uses "linear" (paper, Fig. 16),
    SV3D "triangular". Its trapezoid has a plateau of 1 instead of max_scale; ours has max_scale.
    """
    low, high = config.min_scale, config.max_scale
    if config.kind == "constant":
        return torch.full((num_frames,), high)
    if config.kind == "linear":
        return torch.linspace(low, high, num_frames)
    if config.kind == "triangular":
        place = torch.linspace(0, 1, num_frames)
        return low + (high - low) * (1 - (2 * place - 1).abs())
    num_edge = int(num_frames * config.edge)
    rise = torch.linspace(low, high, num_edge)
    plateau = torch.full((num_frames - 2 * num_edge,), high)
    return torch.cat([rise, plateau, rise.flip(0)])


def guide(
    unconditional: Float[Tensor, "b t c h w"],
    conditional: Float[Tensor, "b t c h w"],
    scales: Float[Tensor, " t"],
) -> Float[Tensor, "b t c h w"]:
    """Return u + w (c - u), with the scale w of each frame (Ho & Salimans 2022, rewritten)."""
    weights = rearrange(scales, "t -> t 1 1 1")
    return unconditional + weights * (conditional - unconditional)


def build_guided(
    denoiser: ConditionedDenoiser,
    conditioning: Conditioning,
    unconditional: Conditioning,
    *,
    scales: Float[Tensor, " t"],
    passes: str,
) -> Denoise:
    """Return the function a solver calls.

    Args:
        denoiser: The model.
        conditioning: What to sample.
        unconditional: The null condition.
        scales: One per frame; where all are 1 the unconditional half is not computed.
        passes: "one-batch" (both halves at once) or "two-passes" (half the activations).
    """
    if bool((scales == 1).all()):
        return lambda x, sigma: denoiser(x, sigma, conditioning)
    if passes == "two-passes":
        return lambda x, sigma: guide(
            denoiser(x, sigma, unconditional),
            denoiser(x, sigma, conditioning),
            scales.to(x.device),
        )
    both = Conditioning.cat([unconditional, conditioning])

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        halves = denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        return guide(halves[0], halves[1], scales.to(x.device))

    return denoise
