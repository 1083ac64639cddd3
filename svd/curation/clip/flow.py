"""Dense optical flow between sampled frames: DIS for accuracy, Farneback for parity."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float16

from svd.media.decode import fit_short_side

DIS_VERSION = "2"  # 2: starts from the global shift, one scale finer
FARNEBACK_VERSION = "1"


@dataclass(frozen=True, slots=True)
class PairFlow:
    """Flow from one sampled frame to the next."""

    dis_px: float  # mean magnitude, in px of the flow picture
    farneback_px: float  # mean magnitude, in px of the map-sized picture
    dis_map: Float16[np.ndarray, "h w 2"]  # (right, down), in px of the flow picture
    farneback_map: Float16[np.ndarray, "h w 2"]  # in px of the map-sized picture


class FlowMeter:
    """Measures the flow between each frame and the one given before.

    DIS (Kroeger 2016) on small luma, started from the pictures' global shift, stays within a few
    per cent of known translations from 2 to 250 px of a 720p video; alone it loses content that
    moves by more than a sixth of the picture. Farneback runs on map-sized frames, as
    video2dataset's optical_flow.yaml has it (resize_size 16, fps 2): the paper's published scores
    fit those units.
    """

    def __init__(self, width: int, height: int, *, flow_side_px: int, map_side_px: int) -> None:
        """Prepare for pictures of this size.

        Args:
            width: Of the pictures, px.
            height: Likewise.
            flow_side_px: Shorter side at which DIS runs.
            map_side_px: Shorter side of stored maps, and of the pictures Farneback sees.
        """
        self.flow_size = fit_short_side(width, height, flow_side_px)
        self.map_size = fit_short_side(width, height, map_side_px)
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setFinestScale(1)  # half size: a quarter, the preset's, blurs slow motion
        self._window = cv2.createHanningWindow(self.flow_size, cv2.CV_32F)
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, picture: np.ndarray) -> PairFlow | None:
        """Return the flow from the last picture (BGR) to this one; None for the first."""
        gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        luma = cv2.resize(gray, self.flow_size, interpolation=cv2.INTER_AREA)
        small = cv2.resize(gray, self.map_size, interpolation=cv2.INTER_AREA)
        last, self._last = self._last, (luma, small)
        if last is None:
            return None
        dis = self._dis_flow(last[0], luma)
        farneback = farneback_flow(last[1], small)
        return PairFlow(
            dis_px=mean_magnitude(dis),
            farneback_px=mean_magnitude(farneback),
            dis_map=cv2.resize(dis, self.map_size, interpolation=cv2.INTER_AREA).astype(np.float16),
            farneback_map=farneback.astype(np.float16),
        )

    def _dis_flow(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        if min(before.shape) < _DIS_MIN_SIDE_PX:
            return np.zeros((*before.shape, 2), dtype=np.float32)
        flow = np.empty((*before.shape, 2), dtype=np.float32)
        flow[:] = global_shift(before, after, self._window)
        return np.asarray(self._dis.calc(before, after, flow))


_DIS_MIN_SIDE_PX = 16  # below it the coarsest level of DIS holds no patch


def global_shift(before: np.ndarray, after: np.ndarray, window: np.ndarray) -> tuple[float, float]:
    """Return the shift (right, down), in px, that lays one luma on the other; (0, 0) if none does.

    Args:
        before: uint8 (h, w).
        after: Likewise.
        window: Weights against the picture's edges, float32 (h, w).
    """
    (shift_x, shift_y), _ = cv2.phaseCorrelate(
        before.astype(np.float32), after.astype(np.float32), window
    )
    x, y = round(shift_x), round(shift_y)
    height, width = before.shape
    if (x, y) == (0, 0) or abs(x) > width // 2 or abs(y) > height // 2:
        return 0.0, 0.0
    old = before[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    new = after[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    moved = cv2.norm(old, new, cv2.NORM_L1) / old.size
    still = cv2.norm(before, after, cv2.NORM_L1) / before.size
    return (shift_x, shift_y) if moved < _SHIFT_EXPLAINS * still else (0.0, 0.0)


_SHIFT_EXPLAINS = 0.8  # share of the difference that a shift may leave; noise leaves all


def farneback_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return Farneback's dense flow, (h, w, 2) float32, (right, down) in px.

    Settings: OpenCV's tutorial values, which video2dataset uses too.
    """
    flow = cv2.calcOpticalFlowFarneback(
        before,
        after,
        np.zeros((*before.shape, 2), dtype=np.float32),
        pyr_scale=0.5,
        levels=3,
        winsize=15,
        iterations=3,
        poly_n=5,
        poly_sigma=1.2,
        flags=0,
    )
    return np.asarray(flow)


def mean_magnitude(flow: np.ndarray) -> float:
    """Return the mean length of the vectors of a flow field."""
    return float(np.hypot(flow[..., 0], flow[..., 1]).mean())
