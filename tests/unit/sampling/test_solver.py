"""Solvers on a problem with a known solution, and against diffusers."""

import math

import pytest
import torch
from torch import Tensor

from svd.config.sampling import ScheduleConfig, SolverConfig
from svd.runtime.seed import torch_generator
from svd.sampling.samplers.noise import NoiseSource
from svd.sampling.samplers.schedule import build_sigmas
from svd.sampling.samplers.solver import solve

MEAN, STD = 0.3, 0.8  # of the data in the solvable problem
SHAPE = (2, 3, 4, 5, 6)


def gaussian_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of data that is normal: E[x0 | x]."""
    level = sigma[:, None, None, None, None] ** 2
    return (STD**2 * x + level * MEAN) / (STD**2 + level)


def exact_flow(x: Tensor, sigma: float) -> Tensor:
    """Where the probability-flow ODE takes x at sigma when it arrives at 0."""
    return MEAN + (x - MEAN) * STD / math.sqrt(STD**2 + sigma**2)


def run(name: str, num_steps: int, *, sigma_max: float = 80.0, **options) -> tuple[Tensor, Tensor]:
    sigmas = build_sigmas(ScheduleConfig(num_steps=num_steps, sigma_max=sigma_max))
    x = torch.randn(SHAPE, generator=torch_generator(1), dtype=torch.float64) * sigma_max
    result = solve(
        gaussian_denoiser,
        x,
        sigmas,
        config=SolverConfig(name=name, **options),
        noise=NoiseSource.from_seeds([1, 2]),
    )
    return result, exact_flow(x, float(sigmas[0]))


def error(name: str, num_steps: int, **options) -> float:
    got, expected = run(name, num_steps, **options)
    return float((got - expected).abs().max())


@pytest.mark.parametrize(
    ("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp-2m", 2)]
)
def test_the_error_falls_with_the_order_of_the_method(name: str, order: int) -> None:
    coarse, fine = error(name, 64), error(name, 256)
    assert fine < 0.05
    assert math.log(coarse / fine, 4) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp-2m", "ddim"])
def test_a_denoiser_that_knows_the_answer_reaches_it_exactly(name: str) -> None:
    answer = torch.randn(SHAPE, generator=torch_generator(3))
    sigmas = build_sigmas(ScheduleConfig(num_steps=5))
    got = solve(
        lambda x, sigma: answer,
        answer + 700 * torch.randn(SHAPE, generator=torch_generator(4)),
        sigmas,
        config=SolverConfig(name=name),
        noise=NoiseSource.from_seeds([1, 2]),
    )
    assert torch.equal(got, answer)


@pytest.mark.parametrize(
    ("name", "options"),
    [("euler-ancestral", {}), ("ddim", {"eta": 1.0}), ("euler", {"s_churn": 40.0})],
    ids=["ancestral", "ddim-eta-1", "churn"],
)
def test_stochastic_solvers_end_in_the_datas_distribution(name: str, options) -> None:
    got = []
    for seed in range(6):
        sigmas = build_sigmas(ScheduleConfig(num_steps=600, sigma_max=40.0))
        x = 40 * torch.randn((4, 4, 4, 8, 8), generator=torch_generator(seed))
        source = NoiseSource.from_seeds([seed * 4 + i for i in range(4)])
        got.append(
            solve(
                gaussian_denoiser,
                x,
                sigmas,
                config=SolverConfig(name=name, **options),
                noise=source,
            )
        )
    samples = torch.stack(got)
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(samples.std()) == pytest.approx(STD, abs=0.03)


def test_without_fresh_noise_ancestral_ddim_and_euler_are_one() -> None:
    euler, _ = run("euler", 9)
    assert torch.equal(run("euler-ancestral", 9, eta=0.0)[0], euler)
    assert torch.equal(run("ddim", 9)[0], euler)


def test_dpmpp_takes_one_call_per_step_and_heun_two_but_for_the_last() -> None:
    calls = {}
    for name in ("euler", "heun", "dpmpp-2m"):
        seen: list[float] = []

        def denoise(x: Tensor, sigma: Tensor, seen: list[float] = seen) -> Tensor:
            seen.append(float(sigma[0]))
            return gaussian_denoiser(x, sigma)

        solve(
            denoise,
            torch.ones(SHAPE),
            build_sigmas(ScheduleConfig(num_steps=6)),
            config=SolverConfig(name=name),
            noise=NoiseSource.from_seeds([0, 1]),
        )
        calls[name] = len(seen)
    assert calls == {"euler": 6, "heun": 11, "dpmpp-2m": 6}


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_that_of_diffusers(eta: float) -> None:
    """Diffusers steps in the variance-preserving frame; ours is x / sqrt(alpha_bar)."""
    scheduler = pytest.importorskip("diffusers").DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="leading",
        steps_offset=1,
    )
    num_steps = 8
    scheduler.set_timesteps(num_steps)
    sigmas = build_sigmas(ScheduleConfig(kind="discrete", num_steps=num_steps)).double()
    start = torch.randn(SHAPE, generator=torch_generator(7), dtype=torch.float64)
    ours = solve(
        gaussian_denoiser,
        start * float(sigmas[0]),
        sigmas,
        config=SolverConfig(name="ddim", eta=eta),
        noise=NoiseSource.from_seeds([1, 2]),
    )
    fresh = NoiseSource.from_seeds([1, 2])
    theirs = start * float(sigmas[0]) / math.sqrt(1 + float(sigmas[0]) ** 2)
    for step, sigma in zip(scheduler.timesteps, sigmas[:-1], strict=True):
        full = theirs * (1 + sigma**2).sqrt()
        estimate = gaussian_denoiser(full, sigma.expand(SHAPE[0]))
        noise = fresh.draw(SHAPE[1:], torch.device("cpu")).double() if eta else None
        theirs = scheduler.step(estimate, step, theirs, eta=eta, variance_noise=noise).prev_sample
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0.0)


@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_euler_equals_that_of_diffusers(num_steps: int) -> None:
    scheduler = pytest.importorskip("diffusers").EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    scheduler.set_timesteps(num_steps)
    start = torch.randn(SHAPE, generator=torch_generator(7)) * 700
    ours = solve(
        gaussian_denoiser,
        start,
        build_sigmas(ScheduleConfig(num_steps=num_steps)),
        config=SolverConfig(),
        noise=NoiseSource.from_seeds([1, 2]),
    )
    theirs = start
    for step, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        estimate = gaussian_denoiser(theirs, sigma.expand(SHAPE[0]))
        scheduler.scale_model_input(theirs, step)
        c_skip, c_out = 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1).sqrt()
        theirs = scheduler.step((estimate - c_skip * theirs) / c_out, step, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-5)


def test_dpmpp_equals_that_of_diffusers() -> None:
    scheduler = pytest.importorskip("diffusers").EDMDPMSolverMultistepScheduler(
        sigma_min=0.002,
        sigma_max=80.0,
        sigma_data=0.5,
        prediction_type="epsilon",
        solver_order=2,
        lower_order_final=True,
        euler_at_final=True,
    )
    scheduler.set_timesteps(9)
    sigmas = build_sigmas(ScheduleConfig(num_steps=9, sigma_max=80.0))
    start = torch.randn(SHAPE, generator=torch_generator(7)) * 80
    ours = solve(
        gaussian_denoiser,
        start,
        sigmas,
        config=SolverConfig(name="dpmpp-2m"),
        noise=NoiseSource.from_seeds([1, 2]),
    )
    theirs = start
    for step, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        estimate = gaussian_denoiser(theirs, sigma.expand(SHAPE[0]))
        c_skip = 0.5**2 / (sigma**2 + 0.5**2)
        c_out = sigma * 0.5 / (sigma**2 + 0.5**2).sqrt()
        theirs = scheduler.step((estimate - c_skip * theirs) / c_out, step, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_noise_of_a_sample_does_not_depend_on_its_neighbours() -> None:
    both = NoiseSource.from_seeds([5, 9])
    alone = NoiseSource.from_seeds([9])
    for _ in range(3):
        pair = both.draw((3, 2), torch.device("cpu"))
        assert torch.equal(pair[1:], alone.draw((3, 2), torch.device("cpu")))


def test_segments_of_a_long_video_get_their_own_noise() -> None:
    first = NoiseSource.from_seeds([5]).draw((8,), torch.device("cpu"))
    second = NoiseSource.from_seeds([5], segment=1).draw((8,), torch.device("cpu"))
    assert not torch.allclose(first, second)


def test_every_step_is_reported() -> None:
    ticks: list[int] = []
    solve(
        gaussian_denoiser,
        torch.ones(SHAPE),
        build_sigmas(ScheduleConfig(num_steps=4)),
        config=SolverConfig(name="heun"),
        noise=NoiseSource.from_seeds([0, 1]),
        on_step=lambda: ticks.append(1),
    )
    assert len(ticks) == 4
