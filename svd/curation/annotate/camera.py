"""What of a clip's motion is the camera's: a similarity fitted to each flow map.

Model: a point at (x, y) from the centre moves by (tx + s x - r y, ty + r x + s y): shift, zoom s
and roll r per pair of sampled frames. The fit is by least squares with weights that fall with
the residual (Tukey's biweight), so that objects moving on their own do not drag it along.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from svd.config.curation import BankConfig
from svd.curation.annotate.scoring import ClipView, Measured
from svd.types.annotation import Scorer

_ITERATIONS = 8
_TUKEY = 4.685  # in robust standard deviations: 95 % efficiency for normal residuals
_MAD_TO_STD = 1.4826  # of a normal distribution
_MIN_SCALE_PX = 0.05  # below it residuals are noise of the flow itself


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """Camera motion between two frames, as it shows in the picture."""

    shift_x: float  # content's shift to the right, px of the flow picture; camera goes left
    shift_y: float  # content's shift downwards
    zoom: float  # relative growth; > 0: the camera goes in
    roll: float  # radians, clockwise on the screen
    residual_px: float  # mean length of what is left: motion of objects
    explained: float  # share of the squared flow that the camera explains, 0..1


def fit_camera(flow: Float[np.ndarray, "h w 2"], *, pixel_px: float) -> CameraMotion:
    """Fit the camera's motion to a flow map.

    Args:
        flow: (right, down), in px of the picture the flow was computed on.
        pixel_px: Size of one pixel of the map in those px.
    """
    height, width = flow.shape[:2]
    x = np.tile((np.arange(width) - (width - 1) / 2) * pixel_px, height)
    y = np.repeat((np.arange(height) - (height - 1) / 2) * pixel_px, width)
    u, v = flow.reshape(-1, 2).astype(np.float64).T
    weights = np.ones(len(x))
    for _ in range(_ITERATIONS):
        solution = _weighted_similarity(x, y, u, v, weights)
        shift_x, shift_y, zoom, roll = solution
        left = np.hypot(u - shift_x - zoom * x + roll * y, v - shift_y - zoom * y - roll * x)
        scale = max(_MIN_SCALE_PX, _MAD_TO_STD * float(np.median(left)))
        weights = np.clip(1 - (left / (_TUKEY * scale)) ** 2, 0, None) ** 2
    power = float((u @ u) + (v @ v))
    return CameraMotion(
        shift_x=float(solution[0]),
        shift_y=float(solution[1]),
        zoom=float(solution[2]),
        roll=float(solution[3]),
        residual_px=float(left.mean()),
        explained=max(0.0, 1 - float(np.square(left).sum()) / power) if power > 0 else 1.0,
    )


def _weighted_similarity(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    u: Float[np.ndarray, " n"],
    v: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "4"]:
    """Solve the weighted least squares for (shift_x, shift_y, zoom, roll) in closed form."""
    total = max(float(weights.sum()), 1e-9)
    mean_x, mean_y, mean_u, mean_v = (float(weights @ part) / total for part in (x, y, u, v))
    x, y, u, v = x - mean_x, y - mean_y, u - mean_u, v - mean_v
    power = max(float(weights @ (x * x + y * y)), 1e-9)
    zoom = float(weights @ (x * u + y * v)) / power
    roll = float(weights @ (x * v - y * u)) / power
    return np.array(
        [mean_u - zoom * mean_x + roll * mean_y, mean_v - zoom * mean_y - roll * mean_x, zoom, roll]
    )


class CameraAnnotator:
    """Scores the mean camera motion per pair of sampled frames, and what it leaves."""

    def __init__(self, bank: BankConfig) -> None:
        self._bank = bank

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings."""
        return Scorer(
            name="camera",
            version="similarity 1",
            settings={
                "rate_hz": self._bank.rate_hz,
                "flow_short_side_px": self._bank.flow_short_side_px,
                "map_short_side_px": self._bank.map_short_side_px,
            },
        )

    def measure(self, view: ClipView) -> Measured:
        """Return the means over the clip's pairs."""
        maps = view.flow.dis_map
        names = ("shift_x", "shift_y", "zoom", "roll", "residual_px", "explained")
        if not len(maps):
            return Measured(missing=dict.fromkeys(names, "fewer than two sampled frames"))
        pixel_px = self._bank.flow_short_side_px / min(maps.shape[1:3])
        fits = [fit_camera(flow, pixel_px=pixel_px) for flow in maps]
        scores = {name: float(np.mean([getattr(fit, name) for fit in fits])) for name in names}
        speeds = [float(np.hypot(fit.shift_x, fit.shift_y)) for fit in fits]
        return Measured(scores=scores | {"speed_px": float(np.mean(speeds))})
