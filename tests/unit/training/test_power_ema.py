"""Power-function averages, and others of any width put together from their snapshots."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svd.errors import MissingInputError
from svd.models.checkpoints.weights import save_state
from svd.runtime.seed import torch_generator
from svd.training.checkpoints.power_ema import (
    PowerEma,
    Profile,
    decay_at,
    find_snapshots,
    gamma_of,
    inner_product,
    reconstruct,
    snapshot_path,
    solve_weights,
)

STDS = (0.05, 0.10)


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_gammas_are_those_of_edm2(std: float, gamma: float) -> None:
    assert gamma_of(std) == pytest.approx(gamma, abs=0.005)  # paper, section 3.1


@given(st.floats(0.02, 0.27))
def test_gamma_gives_back_the_width(std: float) -> None:
    gamma = gamma_of(std)
    assert ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5 == pytest.approx(std)


def response(std: float, end: int, length: int) -> np.ndarray:
    """How much the weights of each step count in the average that ends at a step."""
    weights = np.zeros(length)
    for step in range(1, end + 1):
        decay = decay_at(gamma_of(std), step)
        weights[:step] *= decay
        weights[step - 1] = 1 - decay
    return weights


def test_the_average_weighs_the_past_by_a_power_and_forgets_its_start() -> None:
    weights = response(0.1, 1000, 1000)
    assert weights.sum() == pytest.approx(1)
    time = (np.arange(1000) + 1) / 1000
    mean = (weights * time).sum()
    assert ((weights * (time - mean) ** 2).sum()) ** 0.5 == pytest.approx(0.1, rel=0.01)


def test_the_inner_product_is_that_of_the_profiles() -> None:
    a, b = Profile(600.0, gamma_of(0.05)), Profile(900.0, gamma_of(0.1))
    time = np.linspace(0, 900, 400_001)

    def density(profile: Profile) -> np.ndarray:
        inside = (profile.gamma + 1) / profile.end * (time / profile.end) ** profile.gamma
        return np.where(time <= profile.end, inside, 0.0)

    integral = np.trapezoid(density(a) * density(b), time)
    assert inner_product(a, b) == pytest.approx(integral, rel=1e-4)
    assert inner_product(b, a) == pytest.approx(integral, rel=1e-4)


def test_a_width_that_was_kept_is_its_own_reconstruction() -> None:
    snapshots = [Profile(step, gamma_of(std)) for step in (10.0, 20.0, 30.0) for std in STDS]
    factors = solve_weights(snapshots, Profile(30.0, gamma_of(0.10)))
    assert factors == pytest.approx([0, 0, 0, 0, 0, 1], abs=1e-8)


@pytest.mark.parametrize("std", [0.06, 0.08, 0.12, 0.15])
def test_any_width_is_close_to_the_average_that_was_never_kept(tmp_path: Path, std: float) -> None:
    num_steps, every = 512, 32
    weights = torch.zeros(200)
    kept = PowerEma([weights], stds=STDS)
    wanted = PowerEma([weights], stds=[std])
    generator = torch_generator(0)
    for step in range(1, num_steps + 1):  # a drift with a random walk on it, as weights do
        weights += 0.02 + torch.randn(200, generator=generator) * 0.05
        kept.update()
        wanted.update()
        if step % every == 0:
            for width, (flat,) in kept.flats.items():
                path = snapshot_path(tmp_path, step=step, std=width)
                save_state({"w": flat.half()}, path)
    found = reconstruct(find_snapshots(tmp_path), std=std, step=num_steps)
    error = (found["w"] - wanted.flats[std][0]).norm()
    distance = min((flats[0] - wanted.flats[std][0]).norm() for flats in kept.flats.values())
    assert error < 0.05 * distance
    with pytest.raises(MissingInputError, match="no snapshot of step 40; there are: 32, 64"):
        reconstruct(find_snapshots(tmp_path), std=std, step=40)
