"""A clip's camera motion to one class: the one that holds most of a steady, well fitted motion.

Source of the model: a similarity (shift, zoom, roll) fitted to each flow map, see
`svd.curation.annotate.camera`. Source of the classes: SVD paper, section 4.3.1.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from svd.config.camera_motion import CameraMotionConfig
from svd.curation.annotate.camera import CameraMotion, fit_camera
from svd.types.camera import CameraClass, CameraReading

_REFERENCE_PX = 128.0  # shorter side of the picture in whose px readings are given


def read_camera(
    maps: Sequence[Float[np.ndarray, "h w 2"]], *, short_side_px: float
) -> CameraReading | None:
    """Return the mean camera motion of flow maps half a second apart; None if there is no map.

    Args:
        maps: Flow (right, down), in px of the picture it was computed on.
        short_side_px: Shorter side of that picture.
    """
    if not len(maps):
        return None
    height, width = maps[0].shape[:2]
    pixel_px = short_side_px / min(height, width)
    fits = [fit_camera(np.asarray(flow), pixel_px=pixel_px) for flow in maps]
    radius = pixel_px * _mean_radius(height, width)
    scale = _REFERENCE_PX / short_side_px
    motions = scale * np.array([_motion(fit, radius) for fit in fits])
    shift_x, shift_y, zoom, rotation = motions.mean(axis=0).round(6).tolist()
    return CameraReading(
        shift_x=shift_x,
        shift_y=shift_y,
        zoom=zoom,
        rotation=rotation,
        speed=round(float(np.linalg.norm(motions, axis=1).mean()), 6),
        explained=round(float(np.mean([fit.explained for fit in fits])), 6),
        num_pairs=len(fits),
    )


def _motion(fit: CameraMotion, radius: float) -> tuple[float, float, float, float]:
    return fit.shift_x, fit.shift_y, fit.zoom * radius, fit.roll * radius


def _mean_radius(height: int, width: int) -> float:
    """Return the mean distance of a map's cells from its centre, in cells."""
    x = np.arange(width) - (width - 1) / 2
    y = np.arange(height) - (height - 1) / 2
    return float(np.hypot(x[None, :], y[:, None]).mean())


def classify(reading: CameraReading | None, config: CameraMotionConfig) -> CameraClass:
    """Return the class of a reading.

    "other" is what no one class explains: tilts, mixtures, shaking, and motion that is not the
    camera's.
    """
    if reading is None:
        return "other"
    if reading.speed < config.static_speed:
        return "static"
    shares = class_shares(reading)
    steadiness = float(np.sqrt(_power(reading))) / reading.speed
    if reading.explained < config.min_explained or steadiness < config.min_steadiness:
        return "other"
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= config.min_share else "other"


def class_shares(reading: CameraReading) -> dict[CameraClass, float]:
    """Return how the squared mean motion divides among the classes that move; tilt is "other"."""
    power = max(_power(reading), 1e-12)
    return {
        "horizontal": reading.shift_x**2 / power,
        "zoom": reading.zoom**2 / power,
        "rotation": reading.rotation**2 / power,
        "other": reading.shift_y**2 / power,
    }


def _power(reading: CameraReading) -> float:
    return reading.shift_x**2 + reading.shift_y**2 + reading.zoom**2 + reading.rotation**2
