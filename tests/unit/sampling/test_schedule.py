"""Noise levels against the paper, diffusers and the release's numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from svd.config.sampling import ScheduleConfig
from svd.sampling.samplers.schedule import build_sigmas, discrete_table


def diffusers_class(name: str) -> type:
    return getattr(pytest.importorskip("diffusers"), name)


@given(
    num_steps=st.integers(1, 200),
    sigma_min=st.floats(1e-3, 1.0),
    ratio=st.floats(1.5, 1e5),
    rho=st.floats(1.0, 10.0),
    kind=st.sampled_from(["karras", "exponential"]),
)
@settings(deadline=None)
def test_levels_fall_from_the_largest_to_zero(num_steps, sigma_min, ratio, rho, kind) -> None:
    config = ScheduleConfig(
        kind=kind, num_steps=num_steps, sigma_min=sigma_min, sigma_max=sigma_min * ratio, rho=rho
    )
    sigmas = build_sigmas(config)
    assert len(sigmas) == num_steps + 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert sigmas[0] == pytest.approx(config.sigma_max, rel=1e-6)
    if num_steps > 1:
        assert sigmas[-2] == pytest.approx(config.sigma_min, rel=1e-5)


def test_25_steps_are_those_of_the_release() -> None:
    sigmas = build_sigmas(ScheduleConfig())
    head = torch.tensor([700.0, 545.7, 421.6])
    torch.testing.assert_close(sigmas[:3], head, atol=0.05, rtol=0.0)
    tail = torch.tensor([0.0248, 0.0079, 0.002, 0.0])
    torch.testing.assert_close(sigmas[-4:], tail, atol=5e-5, rtol=0.0)


@pytest.mark.parametrize("num_steps", [1, 3, 25, 30])
def test_karras_levels_equal_those_of_diffusers(num_steps: int) -> None:
    scheduler = diffusers_class("EulerDiscreteScheduler")(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        steps_offset=1,
    )
    scheduler.set_timesteps(num_steps)
    sigmas = build_sigmas(ScheduleConfig(num_steps=num_steps))
    torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=1e-5, atol=0.0)
    assert float((1 + sigmas[0] ** 2).sqrt()) == pytest.approx(
        float(scheduler.init_noise_sigma), rel=1e-6
    )


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("num_steps", [7, 25, 50])
def test_discrete_levels_equal_those_of_diffusers(spacing: str, num_steps: int) -> None:
    scheduler = diffusers_class("DDIMScheduler")(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing=spacing,
        steps_offset=1,
    )
    scheduler.set_timesteps(num_steps)
    kept = scheduler.alphas_cumprod[scheduler.timesteps].double()
    expected = ((1 - kept) / kept).sqrt().float()
    config = ScheduleConfig(kind="discrete", num_steps=num_steps, spacing=spacing)
    torch.testing.assert_close(build_sigmas(config)[:-1], expected, rtol=2e-4, atol=0.0)


def test_the_discrete_table_spans_stable_diffusions_levels() -> None:
    table = discrete_table(1000, beta_start=0.00085, beta_end=0.012)
    assert table[0] == pytest.approx(0.0292, abs=1e-4)  # SVD paper: 0.029 .. 14.61
    assert table[-1] == pytest.approx(14.6146, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma_min": 800.0}, "sigma_min=800.0 is not below sigma_max=700.0"),
        ({"beta_start": 0.5}, "beta_start=0.5 is not below"),
        ({"kind": "discrete", "num_steps": 50, "num_train_steps": 10}, "exceeds num_train_steps"),
    ],
    ids=["sigma-ends", "beta-ends", "too-many-steps"],
)
def test_a_schedule_that_cannot_be_is_refused(change, words) -> None:
    with pytest.raises(ValidationError, match=words):
        ScheduleConfig(**change)


def test_levels_are_exact_in_float32() -> None:
    ramp = np.linspace(0, 1, 25)
    exact = (700 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 700 ** (1 / 7))) ** 7
    assert np.array_equal(build_sigmas(ScheduleConfig())[:-1].numpy(), exact.astype(np.float32))
