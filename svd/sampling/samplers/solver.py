"""Solvers of the probability-flow ODE and of its stochastic sisters, one function each.

Every solver walks x from sigmas[0] to sigmas[-1] = 0 with a `denoise(x, sigma)` that returns the
estimate of the clean latents. The state stays in float32 whatever the model computes in: at
sigma 700 half precision would leave steps of 0.5.

Steps are written as denoised + ratio * (x - denoised), which is Euler's step without the
cancellation near sigma 0.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from svd.config.sampling import SolverConfig
from svd.sampling.samplers.noise import NoiseSource

Latents = Float[Tensor, "b t c h w"]
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x "b t c h w", sigma "b") -> denoised
OnStep = Callable[[], None]  # called after each step


class Step(NamedTuple):
    """One step of a schedule."""

    sigma: float
    sigma_next: float


def steps_of(sigmas: Float[Tensor, " n"]) -> Iterator[Step]:
    """Yield the steps between neighbouring noise levels."""
    levels = sigmas.tolist()
    for sigma, sigma_next in pairwise(levels):
        yield Step(sigma, sigma_next)


def _at(x: Latents, sigma: float) -> Float[Tensor, " b"]:
    return torch.full((x.shape[0],), sigma, device=x.device, dtype=torch.float32)


def _towards(denoised: Latents, x: Latents, ratio: float) -> Latents:
    return denoised + ratio * (x - denoised)


def _churn(
    x: Latents, sigma: float, *, num_steps: int, config: SolverConfig, noise: NoiseSource
) -> tuple[Latents, float]:
    """Raise the noise level before a step (Karras 2022, Algorithm 2, lines 4-6)."""
    if config.s_churn == 0 or not config.s_tmin <= sigma <= config.s_tmax:
        return x, sigma
    gamma = min(config.s_churn / num_steps, 2**0.5 - 1)
    raised = sigma * (1 + gamma)
    extra = config.s_noise * (raised**2 - sigma**2) ** 0.5
    return x + extra * noise.draw(x.shape[1:], x.device), raised


def sample_euler(
    denoise: Denoise,
    x: Latents,
    sigmas: Float[Tensor, " n"],
    *,
    config: SolverConfig,
    noise: NoiseSource,
    on_step: OnStep,
) -> Latents:
    """Euler's method with optional churn: the sampler of the release (Karras 2022, Alg. 2)."""
    for sigma, sigma_next in steps_of(sigmas):
        x, raised = _churn(x, sigma, num_steps=len(sigmas) - 1, config=config, noise=noise)
        x = _towards(denoise(x, _at(x, raised)), x, sigma_next / raised)
        on_step()
    return x


def sample_heun(
    denoise: Denoise,
    x: Latents,
    sigmas: Float[Tensor, " n"],
    *,
    config: SolverConfig,
    noise: NoiseSource,
    on_step: OnStep,
) -> Latents:
    """Heun's second-order method; the last step is Euler's (Karras 2022, Algorithms 1 and 2)."""
    for sigma, sigma_next in steps_of(sigmas):
        x, raised = _churn(x, sigma, num_steps=len(sigmas) - 1, config=config, noise=noise)
        denoised = denoise(x, _at(x, raised))
        euler = _towards(denoised, x, sigma_next / raised)
        if sigma_next == 0:
            x = euler
        else:
            slope = (x - denoised) / raised
            slope_next = (euler - denoise(euler, _at(x, sigma_next))) / sigma_next
            x = x + (sigma_next - raised) * (slope + slope_next) / 2
        on_step()
    return x


def sample_dpmpp_2m(
    denoise: Denoise,
    x: Latents,
    sigmas: Float[Tensor, " n"],
    *,
    config: SolverConfig,  # noqa: ARG001 (every solver is called alike; this one has no knobs)
    noise: NoiseSource,  # noqa: ARG001 (deterministic)
    on_step: OnStep,
) -> Latents:
    """DPM-Solver++(2M), first order on the first and the last step.

    Source: Lu 2022, "DPM-Solver++", Algorithm 2, with alpha = 1 and lambda = -ln sigma.
    """
    previous: Latents | None = None
    h_previous = 0.0
    for sigma, sigma_next in steps_of(sigmas):
        denoised = denoise(x, _at(x, sigma))
        if sigma_next == 0:
            x = denoised
        else:
            h = math.log(sigma / sigma_next)  # the step in lambda
            estimate = denoised
            if previous is not None:
                estimate = denoised + h / (2 * h_previous) * (denoised - previous)
            x = _towards(estimate, x, sigma_next / sigma)
            previous, h_previous = denoised, h
        on_step()
    return x


def sample_ancestral(
    denoise: Denoise,
    x: Latents,
    sigmas: Float[Tensor, " n"],
    *,
    config: SolverConfig,
    noise: NoiseSource,
    on_step: OnStep,
) -> Latents:
    """Step below the next level and add fresh noise up to it.

    With eta 1 this is ancestral Euler (k-diffusion). On the discrete table it is DDIM with the
    same eta: DDIM's variance eta^2 (1-a')/(1-a) (1-a/a'), divided by a' to scale the signal to
    1, is eta^2 s'^2 (s^2-s'^2)/s^2 where s^2 = (1-a)/a. Source: Song 2021 ("DDIM"), eq. 12 and 16.
    """
    eta = _DEFAULT_ETA[config.name] if config.eta is None else config.eta
    for sigma, sigma_next in steps_of(sigmas):
        up = min(sigma_next, eta * sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5)
        down = max(sigma_next**2 - up**2, 0.0) ** 0.5
        x = _towards(denoise(x, _at(x, sigma)), x, down / sigma)
        if up > 0:
            x = x + up * noise.draw(x.shape[1:], x.device)
        on_step()
    return x


_DEFAULT_ETA = {"euler-ancestral": 1.0, "ddim": 0.0}
_SOLVERS = {
    "euler": sample_euler,
    "heun": sample_heun,
    "dpmpp-2m": sample_dpmpp_2m,
    "euler-ancestral": sample_ancestral,
    "ddim": sample_ancestral,
}


def solve(
    denoise: Denoise,
    x: Latents,
    sigmas: Float[Tensor, " n"],
    *,
    config: SolverConfig,
    noise: NoiseSource,
    on_step: OnStep = lambda: None,
) -> Latents:
    """Walk x from sigmas[0] down to 0 with the chosen solver.

    Args:
        denoise: Returns the denoised latents for (x, sigma per sample).
        x: Latents at noise level sigmas[0], float32.
        sigmas: Falling levels; the last is 0.
        config: Which solver, and its knobs.
        noise: Where stochastic solvers draw from.
        on_step: Called after each step.
    """
    return _SOLVERS[config.name](denoise, x, sigmas, config=config, noise=noise, on_step=on_step)
