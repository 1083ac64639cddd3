import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from patterns import pattern

from svd.evaluation.metrics.temporal import (
    energy_ratio,
    flicker,
    motion_energy,
    motion_histogram_distance,
    sharpness,
)

VIDEO = pattern(6, 24, 32)
STILL = VIDEO[:1].expand_as(VIDEO)
VALUES = st.lists(st.floats(0, 100), min_size=1, max_size=8)


def test_a_still_video_has_neither_flicker_nor_energy() -> None:
    assert flicker(STILL) == motion_energy(STILL) == 0


def test_a_step_of_ten_grey_levels_flickers_by_ten() -> None:
    levels = torch.tensor([0, 10, 0, 10], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    assert flicker(levels) == 10
    assert motion_energy(levels) == 100


def test_energy_ratio_is_one_for_the_truth_and_for_two_still_videos() -> None:
    assert energy_ratio(VIDEO, VIDEO) == 1
    assert energy_ratio(STILL, STILL) == 1
    assert energy_ratio(STILL, VIDEO) < 0.01


@given(values=VALUES, shift=st.floats(0, 50))
def test_motion_distance_of_a_shifted_set_is_the_shift(values: list[float], shift: float) -> None:
    a = torch.tensor(values, dtype=torch.float64)
    assert motion_histogram_distance(a, a + shift) == pytest.approx(shift, abs=1e-9)


@given(a=VALUES, b=VALUES, c=VALUES)
def test_motion_distance_is_a_metric(a: list[float], b: list[float], c: list[float]) -> None:
    x, y, z = (torch.tensor(values, dtype=torch.float64) for values in (a, b, c))
    there, back = motion_histogram_distance(x, y), motion_histogram_distance(y, x)
    assert there == pytest.approx(back, abs=1e-9)
    around = motion_histogram_distance(x, z) + motion_histogram_distance(z, y)
    assert there <= around + 1e-9


def test_motion_distance_by_hand() -> None:
    # Half of the mass moves from 1 to 3.
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0])
    assert motion_histogram_distance(a, b) == pytest.approx(1.0)


def test_blur_is_less_sharp() -> None:
    blurred = torch.nn.functional.avg_pool2d(
        VIDEO.float(), 5, stride=1, padding=2, count_include_pad=False
    )
    assert sharpness(blurred.round().to(torch.uint8)) < sharpness(VIDEO)
