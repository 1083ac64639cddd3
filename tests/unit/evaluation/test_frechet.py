from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svd.errors import ConfigError
from svd.evaluation.metrics.frechet import (
    frechet_against_size,
    frechet_distance,
    frechet_from_features,
    frechet_from_moments,
)
from svd.evaluation.metrics.kid import kernel_distance
from svd.evaluation.stats import RunningMoments


def draw(num: int, dim: int, seed: int, *, shift: float = 0.0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.normal(size=(num, dim)) + shift)


def golden_sets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(7)
    a = generator.normal(size=(40, 8)) @ generator.normal(size=(8, 8))
    return torch.from_numpy(a), torch.from_numpy(generator.normal(size=(50, 8)) + 0.3)


def test_equals_scipys_matrix_square_root() -> None:
    # scipy 1.16: |m1 - m2|^2 + tr(S1 + S2 - 2 sqrtm(S1 S2)) of these two sets.
    assert frechet_distance(*golden_sets()) == pytest.approx(24.498344698245294, abs=1e-9)


def test_kernel_distance_equals_torchmetrics() -> None:
    a, b = golden_sets()
    # torchmetrics 1.9, poly_mmd(degree=3, gamma=1/8, coef=1)
    assert kernel_distance(a, b[:40]) == pytest.approx(18.472621838672122, abs=1e-9)


def test_closed_form_of_diagonal_gaussians() -> None:
    # Distance of N(m1, diag s1^2) and N(m2, diag s2^2) is |m1 - m2|^2 + |s1 - s2|^2.
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    std_a = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    std_b = torch.tensor([2.0, 2.0, 0.5], dtype=torch.float64)
    a = RunningMoments(
        num=11, mean=torch.zeros(3, dtype=torch.float64), scatter=10 * torch.diag(std_a**2)
    )
    b = RunningMoments(num=11, mean=mean, scatter=10 * torch.diag(std_b**2))
    expected = float(mean.square().sum() + (std_a - std_b).square().sum())
    assert frechet_from_moments(a, b, divisor="n-1") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("divisor", ["n", "n-1"])
@pytest.mark.parametrize("sizes", [(20, 30), (30, 20), (200, 150)], ids=["few", "fewer", "many"])
def test_nuclear_norm_equals_eigenvalues(sizes: tuple[int, int], divisor: str) -> None:
    a, b = draw(sizes[0], 24, 1), draw(sizes[1], 24, 2, shift=0.5)
    by_features = frechet_from_features(a, b, divisor=divisor)
    by_moments = frechet_from_moments(RunningMoments.of(a), RunningMoments.of(b), divisor=divisor)
    assert by_features == pytest.approx(by_moments, rel=1e-6)


@pytest.mark.parametrize("num", [12, 500], ids=["nuclear norm", "eigenvalues"])
def test_distance_to_itself_is_zero(num: int) -> None:
    features = draw(num, 40, 3)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-5)


def test_distance_is_symmetric_and_grows_with_shift() -> None:
    a = draw(30, 64, 4)
    distances = [frechet_distance(a, a + shift) for shift in (0.0, 0.1, 0.5, 2.0)]
    assert distances == sorted(distances)
    assert frechet_distance(a, a + 0.5) == pytest.approx(64 * 0.25, rel=1e-6)
    b = draw(33, 64, 5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, 60), min_size=0, max_size=4))
def test_moments_merged_from_any_shards_equal_one_pass(cuts: list[int]) -> None:
    features = draw(60, 7, 6) * 1e3 + 1e4  # far from the origin, where raw moments would cancel
    bounds = [0, *sorted(cuts), 60]
    merged = RunningMoments.empty(7)
    for start, stop in pairwise(bounds):
        merged = merged.merged(RunningMoments.of(features[start:stop]))
    whole = RunningMoments.of(features)
    assert merged.num == whole.num
    assert torch.allclose(merged.mean, whole.mean, rtol=1e-12)
    assert torch.allclose(merged.covariance(ddof=1), whole.covariance(ddof=1), rtol=1e-9)


def test_sets_too_small_or_unlike_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 examples a side"):
        frechet_distance(draw(1, 4, 1), draw(5, 4, 2))
    with pytest.raises(ConfigError, match="cannot be compared"):
        frechet_distance(draw(5, 4, 1), draw(5, 3, 2))
    with pytest.raises(ConfigError, match="2 examples a side"):
        kernel_distance(draw(1, 4, 1), draw(5, 4, 2))


def test_small_sets_look_far_apart_and_the_kernel_distance_does_not_mind() -> None:
    frechet, kernel = [], []
    for seed in range(20):
        a, b = draw(24, 100, 100 + seed), draw(24, 100, 200 + seed)
        frechet.append(frechet_distance(a, b))
        kernel.append(kernel_distance(a, b))
    assert np.mean(frechet) > 50  # of two draws of one distribution
    standard_error = np.std(kernel) / np.sqrt(len(kernel))
    assert abs(np.mean(kernel)) < 4 * standard_error


def test_curve_over_size_ends_in_the_distance_of_all() -> None:
    a, b = draw(24, 50, 8), draw(24, 50, 9)
    points = frechet_against_size(a, b, (8, 16, 24), np.random.default_rng(0), num_draws=5)
    assert [point.num for point in points] == [8, 16, 24]
    assert points[-1].mean == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert points[-1].std == pytest.approx(0.0, abs=1e-9)
    assert points[0].mean > points[-1].mean
