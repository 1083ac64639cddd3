"""Draws depend on their key alone, and follow the paper's distributions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svd.config.training import CondAugConfig, NoiseConfig
from svd.training.objective.noise import DrawKey, Purpose, draw_cond_aug, draw_sigma


def key(*positions: int, seed: int = 1, phase: int = 0) -> DrawKey:
    return DrawKey(seed, phase, positions)


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=6, unique=True), st.integers(0, 9))
def test_an_example_draws_the_same_in_any_batch(positions: list[int], seed: int) -> None:
    together = key(*positions, seed=seed).normal(Purpose.NOISE, (2, 3))
    alone = [key(p, seed=seed).normal(Purpose.NOISE, (2, 3))[0] for p in positions]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize(
    "other", [key(6), key(5, seed=2), key(5, phase=1)], ids=["position", "seed", "phase"]
)
def test_every_part_of_the_key_counts(other: DrawKey) -> None:
    here = key(5).normal(Purpose.NOISE, (8,))
    assert not torch.equal(here, other.normal(Purpose.NOISE, (8,)))


def test_purposes_have_streams_of_their_own() -> None:
    drawn = {tuple(key(5).normal(purpose, (4,))[0].tolist()) for purpose in Purpose}
    assert len(drawn) == len(Purpose)


@pytest.mark.parametrize(
    ("p_mean", "p_std", "median", "p95"),
    [(-1.2, 1.0, 0.30, 1.56), (0.0, 1.0, 1.0, 5.2), (0.7, 1.6, 2.0, 28.0), (1.0, 1.6, 2.7, 38.0)],
    ids=["stage I", "base", "I2V base", "I2V high resolution"],
)
def test_sigma_has_the_papers_quantiles(
    p_mean: float, p_std: float, median: float, p95: float
) -> None:
    config = NoiseConfig(p_mean=p_mean, p_std=p_std)
    sigma = draw_sigma(config, key(*range(4000)))
    assert math.exp(p_mean) == pytest.approx(median, rel=0.02)
    assert sigma.quantile(0.5).item() == pytest.approx(median, rel=0.1)
    assert sigma.quantile(0.95).item() == pytest.approx(p95, rel=0.15)


def test_cond_aug_has_the_papers_quantiles() -> None:
    cond_aug = draw_cond_aug(CondAugConfig(), key(*range(4000)))
    low, median, high = cond_aug.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    assert (low, median, high) == pytest.approx((0.022, 0.050, 0.113), rel=0.08)
