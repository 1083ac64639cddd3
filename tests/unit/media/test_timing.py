from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svd.media.timing import measure_timing

RATES = [Fraction(24), Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(12)]


def on_grid(rate: Fraction, num: int, time_base: Fraction, start: int = 0) -> np.ndarray:
    return np.array([start + round(i / (rate * time_base)) for i in range(num)], np.int64)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("time_base", [Fraction(1, 1000), Fraction(1, 90000)], ids=str)
@given(num=st.integers(10, 400), start=st.integers(-5000, 5000))
def test_a_regular_rate_is_found_exactly_through_rounded_ticks(rate, time_base, num, start) -> None:
    pts = on_grid(rate, num, time_base, start)
    timing = measure_timing(pts, time_base, last_duration=0, claimed=[rate])
    assert timing == (rate, False, start, num / rate)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_a_standard_rate_is_found_without_any_claim(rate) -> None:
    pts = on_grid(rate, 400, Fraction(1, 1000))
    assert measure_timing(pts, Fraction(1, 1000), last_duration=0).fps == rate


def test_a_false_claim_is_not_believed() -> None:
    pts = on_grid(Fraction(24), 100, Fraction(1, 90000))
    timing = measure_timing(pts, Fraction(1, 90000), last_duration=0, claimed=[Fraction(30)])
    assert (timing.fps, timing.is_vfr) == (24, False)


def test_one_dropped_frame_makes_the_rate_variable() -> None:
    ticks = np.delete(np.arange(50), 20)  # one tick per frame, as in AVI
    timing = measure_timing(ticks, Fraction(1, 25), last_duration=1, claimed=[Fraction(25)])
    assert timing.is_vfr
    assert timing.fps == Fraction(48 * 25, 49)
    assert timing.duration == 2


def test_a_variable_rate_is_the_mean_over_the_whole() -> None:
    pts = np.array([0, 40, 80, 160, 300], np.int64)
    timing = measure_timing(pts, Fraction(1, 1000), last_duration=60)
    assert timing == (Fraction(40, 3), True, 0, Fraction(360, 1000))
