"""From the presentation times of a stream to its exact rate, and whether it has one."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_PLAUSIBLE_FPS = 1000  # a header may claim more; nothing we keep is shot or played faster


class Timing(NamedTuple):
    """When the pictures of a stream are shown."""

    fps: Fraction  # exact where the stream is regular, else the mean over all of it
    is_vfr: bool  # the times fit no regular grid, allowing for the container's rounding
    start_pts: int
    duration: Fraction  # seconds, from the first picture's start to the last one's end


def measure_timing(
    pts: NDArray[np.int64],
    time_base: Fraction,
    *,
    last_duration: int,
    claimed: Iterable[Fraction] = (),
) -> Timing:
    """Measure a stream of at least two pictures.

    A container with coarse ticks (milliseconds in Matroska) rounds the times of a regular stream,
    so the mean of its steps is not its rate: a rate counts as exact when every time lies on its
    grid to within that rounding.

    Args:
        pts: Presentation times in ticks, sorted, the last later than the first.
        time_base: Seconds per tick.
        last_duration: Ticks the last picture is shown; 0 if the container does not say.
        claimed: Rates the container claims, most credible first.
    """
    start, last = int(pts[0]), int(pts[-1])
    mean = (len(pts) - 1) / ((last - start) * time_base)
    candidates = _candidates(claimed, mean)
    exact = next((rate for rate in candidates if _is_regular(pts, rate, time_base)), None)
    if exact is not None:
        return Timing(fps=exact, is_vfr=False, start_pts=start, duration=len(pts) / exact)
    shown_last = last_duration * time_base if last_duration > 0 else 1 / mean
    duration = (last - start) * time_base + shown_last
    return Timing(fps=mean, is_vfr=True, start_pts=start, duration=duration)


def _candidates(claimed: Iterable[Fraction], mean: Fraction) -> Iterator[Fraction]:
    """Yield rates worth trying, near the mean: claimed, whole, NTSC, and the mean itself."""
    for rate in (*claimed, Fraction(round(mean)), Fraction(round(mean) * 1000, 1001), mean):
        if 0 < rate <= MAX_PLAUSIBLE_FPS and abs(rate - mean) <= mean / 20:
            yield rate


def _is_regular(pts: NDArray[np.int64], rate: Fraction, time_base: Fraction) -> bool:
    """Return whether every time is a tick next to its place on the grid of this rate."""
    step = 1 / (rate * time_base)  # ticks per picture
    # A grid of whole ticks leaves nothing to round; else each end may be off by half a tick.
    tolerance = 0.0 if step.denominator == 1 else min(1.0, float(step) / 4)
    ideal = np.arange(len(pts)) * (step.numerator / step.denominator)
    return bool(np.all(np.abs((pts - pts[0]) - ideal) <= tolerance + 1e-6))
