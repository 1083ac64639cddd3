import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svd.errors import ConfigError
from svd.evaluation.stats import (
    bootstrap_mean_interval,
    bootstrap_spread_interval,
    wilson_interval,
)


def test_wilson_interval_equals_a_published_example() -> None:
    # Newcombe 1998, Table I, method 3: 15 of 148 at 95 percent.
    low, high = wilson_interval(15, 148, level=0.95)
    assert (low, high) == pytest.approx((0.0624, 0.1605), abs=5e-5)


@given(num=st.integers(1, 200), share=st.floats(0, 1), level=st.floats(0.6, 0.99))
def test_wilson_interval_holds_the_share_and_stays_in_range(
    num: int, share: float, level: float
) -> None:
    successes = round(share * num)
    low, high = wilson_interval(successes, num, level=level)
    assert 0 <= low <= successes / num + 1e-12
    assert successes / num - 1e-12 <= high <= 1


def test_bootstrap_of_a_mean_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        values = generator.normal(3.0, 2.0, size=40)
        low, high = bootstrap_mean_interval(values, generator, num_resamples=300, level=0.9)
        hits += low <= 3.0 <= high
    assert 0.84 <= hits / 300 <= 0.95


def test_spread_interval_is_centred_on_the_value() -> None:
    values = np.random.default_rng(1).normal(size=50)
    low, high = bootstrap_spread_interval(
        lambda index: float(values[index].mean()),
        float(values.mean()),
        50,
        np.random.default_rng(2),
        num_resamples=2000,
        level=0.95,
    )
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(50), rel=0.1)


def test_intervals_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError):
        wilson_interval(0, 0, level=0.95)
    with pytest.raises(ConfigError):
        bootstrap_mean_interval(np.zeros(0), np.random.default_rng(0), num_resamples=10, level=0.95)
