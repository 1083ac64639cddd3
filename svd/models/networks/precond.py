"""Preconditionings: how the network's output F becomes an estimate of the clean latents.

denoised = c_skip * noisy_latents + c_out * F(c_in * noisy_latents; c_noise)
Source of the form: Karras 2022, Section 5.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from svd.config.model import DenoiserConfig

# Stable Diffusion: sqrt(beta) is linear from sqrt(0.00085) to sqrt(0.012) over 1000 steps.
_SD_BETA_START, _SD_BETA_END, _SD_NUM_STEPS = 0.00085, 0.012, 1000


class Scalings(NamedTuple):
    """The four factors of one preconditioning at given noise levels."""

    c_skip: Float[Tensor, "*n"]
    c_out: Float[Tensor, "*n"]
    c_in: Float[Tensor, "*n"]
    c_noise: Float[Tensor, "*n"]


Preconditioner = Callable[[Tensor], Scalings]


def edm_v_scalings(sigma: Float[Tensor, "*n"]) -> Scalings:
    """Return SVD's scalings: v-prediction for latents of unit variance, c_noise = ln(sigma) / 4.

    Args:
        sigma: Noise level > 0, in standard deviations of the latents.

    Source: Blattmann 2023 (SVD), Appendix D.2. With the loss weight (1 + sigma^2) / sigma^2 the
    loss is the plain mean square of F - (noise - sigma * clean) / sqrt(1 + sigma^2).
    """
    return _v_scalings(sigma, sigma.log() / 4)


def edm_scalings(sigma: Float[Tensor, "*n"], *, sigma_data: float = 0.5) -> Scalings:
    """Return Karras' scalings. Source: Karras 2022, Table 1.

    Args:
        sigma: Noise level > 0.
        sigma_data: Standard deviation of the data.
    """
    total = sigma**2 + sigma_data**2
    return Scalings(
        c_skip=sigma_data**2 / total,
        c_out=sigma * sigma_data * total.rsqrt(),
        c_in=total.rsqrt(),
        c_noise=sigma.log() / 4,
    )


def sd_eps_scalings(sigma: Float[Tensor, "*n"]) -> Scalings:
    """Return Stable Diffusion's scalings for a network that predicts the noise.

    c_noise is the index of the nearest of the 1000 noise levels it was trained on.
    Source: Blattmann 2023 (SVD), Appendix D.2.
    """
    return Scalings(
        c_skip=torch.ones_like(sigma),
        c_out=-sigma,
        c_in=(sigma**2 + 1).rsqrt(),
        c_noise=nearest_sd_index(sigma),
    )


def sd_v_scalings(sigma: Float[Tensor, "*n"]) -> Scalings:
    """Return the same for a network that predicts v (Salimans & Ho 2022)."""
    return _v_scalings(sigma, nearest_sd_index(sigma))


def _v_scalings(sigma: Tensor, c_noise: Tensor) -> Scalings:
    scale = (sigma**2 + 1).rsqrt()
    return Scalings(c_skip=scale**2, c_out=-sigma * scale, c_in=scale, c_noise=c_noise)


@cache
def sd_sigmas(device: torch.device) -> Float[Tensor, "1000"]:
    """Return Stable Diffusion's noise levels, ascending from 0.029 to 14.615, in fp32."""
    betas = torch.linspace(
        _SD_BETA_START**0.5, _SD_BETA_END**0.5, _SD_NUM_STEPS, dtype=torch.float64
    )
    kept = (1 - betas**2).cumprod(0)
    return ((1 - kept) / kept).sqrt().float().to(device)


def nearest_sd_index(sigma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the index (0..999) of the nearest of Stable Diffusion's noise levels, as a float."""
    distance = (sigma[..., None] - sd_sigmas(sigma.device).to(sigma.dtype)).abs()
    return distance.argmin(dim=-1).to(sigma.dtype)


def build_preconditioner(config: DenoiserConfig) -> Preconditioner:
    """Return the scalings that a configuration names."""
    if config.preconditioning == "edm":
        sigma_data = config.sigma_data
        return lambda sigma: edm_scalings(sigma, sigma_data=sigma_data)
    return {"edm-v": edm_v_scalings, "sd-eps": sd_eps_scalings, "sd-v": sd_v_scalings}[
        config.preconditioning
    ]
