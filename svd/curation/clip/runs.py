"""How a video is divided: into runs that one worker decodes, and these into segments."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from svd.media.decode import PacketIndex


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a video whose measurements are stored together: [start_pts, stop_pts).

    Attributes:
        start_pts: None: the beginning.
        stop_pts: The next segment's start; None: the end.
        previous_pts: The last frame before the segment; None at the beginning.
    """

    start_pts: int | None
    stop_pts: int | None
    previous_pts: int | None


def plan_runs(index: PacketIndex, *, segment_s: float) -> tuple[tuple[Segment, ...], ...]:
    """Split a video into runs, each decoded by one worker, and the runs into segments.

    A run starts at a keyframe, for decoding can start there. Its segments bound the memory that
    a worker needs: a film with a single keyframe is one run of many segments. All are at least
    `segment_s` seconds long (the last: half of it).
    """
    pts = np.sort(index.pts)
    at_least = segment_s / float(index.time_base)
    keys = np.sort(index.pts[index.is_keyframe]) if index.is_seekable else pts[:0]
    run_bounds = _bounds(pts, keys, at_least)
    runs = []
    for start, stop in zip([None, *run_bounds], [*run_bounds, None], strict=True):
        inside = pts[(pts >= (start if start is not None else pts[0]))]
        inside = inside if stop is None else inside[inside < stop]
        bounds = _bounds(inside, inside, at_least)
        runs.append(
            tuple(
                Segment(start_pts=low, stop_pts=high, previous_pts=_before(pts, low))
                for low, high in zip([start, *bounds], [*bounds, stop], strict=True)
            )
        )
    return tuple(runs)


def _bounds(
    pts: Int64[np.ndarray, " n"], candidates: Int64[np.ndarray, " k"], at_least: float
) -> list[int]:
    """Return candidates, each so many ticks after the one before, and not too near the end."""
    bounds: list[int] = []
    last = int(pts[0])
    while True:
        after = candidates[np.searchsorted(candidates, last + at_least) :]
        if not len(after) or pts[-1] - after[0] < at_least / 2:
            return bounds
        last = int(after[0])
        bounds.append(last)


def _before(pts: Int64[np.ndarray, " n"], bound: int | None) -> int | None:
    return None if bound is None else int(pts[np.searchsorted(pts, bound) - 1])
