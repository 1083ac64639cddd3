import cv2
import numpy as np
import pytest
from filming import texture

from svd.curation.clip.flow import FlowMeter, PairFlow, global_shift

SIZE = (1280, 720)
SCALE = 720 / 128  # px of the video to one px of the flow picture


def pair(dx: float, *, dy: float = 0.0, seed: int = 1, noise: float = 0.0) -> PairFlow:
    """Return the flow between two views of a wide picture, (dx, dy) px of a 720p video apart."""
    wide = texture(seed, SIZE[0] + 420, SIZE[1] + 420)
    views = []
    for share in (0.0, 1.0):
        matrix = np.float32([[1, 0, share * dx - 210], [0, 1, share * dy - 210]])
        view = cv2.warpAffine(wide, matrix, SIZE).astype(np.float32)
        view += np.random.default_rng(len(views)).normal(0, noise, (*SIZE[::-1], 1))
        views.append(np.clip(view, 0, 255).astype(np.uint8))
    meter = FlowMeter(*SIZE, flow_side_px=128, map_side_px=16)
    assert meter.add(views[0]) is None
    found = meter.add(views[1])
    assert found is not None
    return found


@pytest.mark.parametrize("dx", [1, 2, 4, 8, 16, 32, 64, 128])
def test_dis_measures_translations_within_a_tenth(dx: int) -> None:
    assert pair(dx).dis_px * SCALE == pytest.approx(dx, rel=0.1)


@pytest.mark.parametrize("length", [1, 2, 5, 11, 23, 47, 90, 128, 200])
def test_in_any_direction_and_on_any_picture(length: int) -> None:
    for seed in range(4):
        angle = 2 * np.pi * (seed + 0.3) / 4
        found = pair(length * np.cos(angle), dy=length * np.sin(angle), seed=seed)
        assert found.dis_px * SCALE == pytest.approx(length, rel=0.1)


def test_farneback_on_map_sized_frames_measures_global_motion_in_their_pixels() -> None:
    assert np.median([pair(90, seed=seed).farneback_px for seed in range(3)]) == pytest.approx(
        90 * 16 / 720, rel=0.25
    )


def test_what_shares_nothing_has_no_global_shift() -> None:
    meter = FlowMeter(*SIZE, flow_side_px=128, map_side_px=16)
    first, second = (cv2.resize(texture(seed, *SIZE), meter.flow_size) for seed in (1, 2))
    gray = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in (first, second)]
    window = cv2.createHanningWindow(meter.flow_size, cv2.CV_32F)
    assert global_shift(*gray, window) == (0, 0)
    moved = np.roll(gray[0], (9, -31), axis=(0, 1))
    assert global_shift(gray[0], moved, window) == pytest.approx((-31, 9), abs=0.5)


def test_scores_rank_speeds() -> None:
    speeds = [0, 1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 120]
    scores = [pair(speed, seed=7).dis_px for speed in speeds]
    assert np.argsort(scores).tolist() == list(range(len(speeds)))


def test_a_noisy_still_separates_from_slow_motion() -> None:
    still = max(pair(0, seed=seed, noise=4.0).dis_px for seed in range(2))
    slow = min(pair(6, seed=seed, noise=4.0).dis_px for seed in range(2))
    assert still < 0.3 < 0.8 < slow


def test_maps_point_where_the_content_goes() -> None:
    found = pair(45)
    assert found.dis_map.shape == (16, 28, 2)
    assert np.median(found.dis_map[..., 0].astype(float)) == pytest.approx(8, rel=0.1)
    assert abs(np.median(found.dis_map[..., 1].astype(float))) < 0.5


def test_a_tiny_picture_has_no_flow_but_no_error() -> None:
    meter = FlowMeter(12, 8, flow_side_px=128, map_side_px=16)
    picture = np.zeros((8, 12, 3), dtype=np.uint8)
    meter.add(picture)
    found = meter.add(picture)
    assert found is not None
    assert found.dis_px == 0
