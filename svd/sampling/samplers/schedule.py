"""The falling noise levels that a solver visits."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from svd.config.sampling import ScheduleConfig


def karras_sigmas(
    num_steps: int, *, sigma_min: float, sigma_max: float, rho: float
) -> Float[Tensor, " n"]:
    """Return num_steps levels from sigma_max down to sigma_min, without the final 0.

    Source: Karras 2022, eq. 5; the released SVD uses sigma_min 0.002, sigma_max 700, rho 7.
    """
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas: Tensor = (high + ramp * (low - high)) ** rho
    return sigmas


def exponential_sigmas(
    num_steps: int, *, sigma_min: float, sigma_max: float
) -> Float[Tensor, " n"]:
    """Return num_steps levels that are evenly spaced in ln sigma, without the final 0."""
    ends = math.log(sigma_max), math.log(sigma_min)
    return torch.linspace(*ends, num_steps, dtype=torch.float64).exp()


def discrete_table(
    num_train_steps: int, *, beta_start: float, beta_end: float
) -> Float[Tensor, " n"]:
    """Return the rising sigma of every training step of a model with scaled-linear betas.

    sigma^2 = (1 - alpha_bar) / alpha_bar, the noise level once the signal is scaled to 1.
    Source: latent-diffusion's `make_beta_schedule("linear")` (square roots of beta are linear).
    """
    ends = beta_start**0.5, beta_end**0.5
    betas = torch.linspace(*ends, num_train_steps, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def discrete_sigmas(config: ScheduleConfig) -> Float[Tensor, " n"]:
    """Return the levels of the training table that num_steps steps visit, falling.

    Source of the three spacings: Lin 2023, "Common Diffusion Noise Schedules ...", Table 2.
    """
    table = discrete_table(
        config.num_train_steps, beta_start=config.beta_start, beta_end=config.beta_end
    )
    num, steps = config.num_train_steps, config.num_steps
    if config.spacing == "leading":
        indices = torch.arange(steps) * (num // steps) + config.steps_offset
    elif config.spacing == "trailing":
        falling = num - torch.arange(steps, dtype=torch.float64) * (num / steps)
        indices = falling.round().long().flip(0) - 1
    else:
        indices = torch.linspace(0, num - 1, steps, dtype=torch.float64).round().long()
    return table[indices.clamp(0, num - 1)].flip(0)


def build_sigmas(config: ScheduleConfig) -> Float[Tensor, " n"]:
    """Return the num_steps + 1 levels of a schedule as float32; the last is 0."""
    if config.kind == "karras":
        sigmas = karras_sigmas(
            config.num_steps,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            rho=config.rho,
        )
    elif config.kind == "exponential":
        sigmas = exponential_sigmas(
            config.num_steps, sigma_min=config.sigma_min, sigma_max=config.sigma_max
        )
    else:
        sigmas = discrete_sigmas(config)
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()
