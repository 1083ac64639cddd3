import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svd.curation.annotate.camera import CameraMotion, fit_camera


def flow_of(
    shift_x: float, shift_y: float, zoom: float, roll: float, *, h: int = 16, w: int = 28
) -> np.ndarray:
    x = (np.arange(w) - (w - 1) / 2)[None, :] * 8 + np.zeros((h, 1))
    y = (np.arange(h) - (h - 1) / 2)[:, None] * 8 + np.zeros((1, w))
    return np.stack([shift_x + zoom * x - roll * y, shift_y + zoom * y + roll * x], axis=-1)


def values(motion: CameraMotion) -> tuple[float, float, float, float]:
    return motion.shift_x, motion.shift_y, motion.zoom, motion.roll


small = st.floats(-0.05, 0.05)
shifts = st.floats(-40, 40)


@settings(max_examples=60, deadline=None)
@given(shifts, shifts, small, small)
def test_a_similarity_is_recovered_exactly(dx: float, dy: float, zoom: float, roll: float) -> None:
    motion = fit_camera(flow_of(dx, dy, zoom, roll), pixel_px=8.0)
    assert values(motion) == pytest.approx((dx, dy, zoom, roll), abs=1e-6)
    assert motion.residual_px == pytest.approx(0, abs=1e-6)


def test_objects_do_not_drag_the_fit_along() -> None:
    flow = flow_of(3.0, -1.0, 0.01, 0.0)
    flow[2:10, 4:16] += (25.0, 10.0)  # a fifth of the picture moves by itself
    motion = fit_camera(flow, pixel_px=8.0)
    assert values(motion) == pytest.approx((3.0, -1.0, 0.01, 0.0), abs=0.05)
    assert motion.residual_px > 2


def test_what_stands_still_has_a_still_camera() -> None:
    motion = fit_camera(np.zeros((16, 28, 2)), pixel_px=8.0)
    assert values(motion) == (0, 0, 0, 0)
    assert motion.explained == 1.0


def test_scattered_motion_is_not_the_cameras() -> None:
    flow = np.random.default_rng(0).normal(0, 5, (16, 28, 2))
    assert fit_camera(flow, pixel_px=8.0).explained < 0.1
