"""Fades and dissolves, known by what they are: each frame a mixture of the two ends.

In a dissolve from picture A to picture B every frame is (1 - a) A + a B with a rising from 0 to 1;
a fade is a dissolve from or to one colour. Camera and object motion change the picture just as
much over the same time, but what lies between is no mixture of the ends.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

BLENDS_VERSION = "1"
_WINDOWS_S = (1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0, 4.0, 6.0)
_INTERIOR = 7  # frames looked at between the two ends of a window
_MAX_STEP = 0.45  # of the mixing share between two of them; a hard cut has 1
_MIN_STEP = -0.1  # a transition does not go back, but for noise
_MAX_TO_MEAN = 1.5  # worst to tolerated mean residual; motion is a mixture at times, not throughout
_EDGE = 0.04  # mixing share at which a transition begins and, from 1, ends
_CHUNK = 4096  # windows measured at once, to bound memory


@dataclass(frozen=True, slots=True)
class Blend:
    """A stretch of frames [start, stop) that mixes what lies before with what lies after."""

    start: int
    stop: int
    residual: float  # share of the change that mixing leaves unexplained; 0: a perfect dissolve
    change: float  # mean luma difference between both ends, 0..255


def find_blends(
    thumbs: UInt8[np.ndarray, "n h w"],
    *,
    fps: float,
    max_gradual_s: float,
    max_residual: float,
    min_change: float,
) -> tuple[Blend, ...]:
    """Return every window of a video that looks like (a part of) a fade or dissolve.

    Windows of several lengths are tried, so one transition gives many overlapping stretches, each
    trimmed to where the mixture moves; `join_blends` makes one of them.

    Args:
        thumbs: Small luma pictures of all frames.
        fps: Mean frame rate.
        max_gradual_s: Longest transition looked for.
        max_residual: Most of the change that mixing may leave unexplained.
        min_change: Least mean luma difference between the ends.
    """
    flat = thumbs.reshape(len(thumbs), -1)
    found: list[Blend] = []
    for window_s in _WINDOWS_S:
        length = max(_INTERIOR + 1, round(window_s * fps))
        if window_s <= max_gradual_s and length < len(flat):
            found.extend(_blends_of_length(flat, length, max_residual, min_change))
    return tuple(found)


def _blends_of_length(
    flat: UInt8[np.ndarray, "n p"], length: int, max_residual: float, min_change: float
) -> Iterator[Blend]:
    all_starts = np.arange(0, len(flat) - length, max(1, length // 8))
    for first in range(0, len(all_starts), _CHUNK):
        starts = all_starts[first : first + _CHUNK]
        change = _mean_change(flat, starts, length)
        starts = starts[change >= min_change]
        if not len(starts):
            continue
        shares, residuals = _mixture(flat, starts, length)
        steps = np.diff(shares, axis=1)
        residual = residuals.mean(axis=1)
        worst = residuals.max(axis=1) / _MAX_TO_MEAN
        is_blend = (
            (np.maximum(residual, worst) <= max_residual)
            & (steps.max(axis=1) < _MAX_STEP)
            & (steps.min(axis=1) > _MIN_STEP)
        )
        kept_change = change[change >= min_change]
        for index in np.flatnonzero(is_blend):
            start = int(starts[index])
            low, high = _trim(flat[start : start + length + 1])
            yield Blend(
                start=start + low,
                stop=start + high,
                residual=float(max(residual[index], worst[index])),
                change=float(kept_change[index]),
            )


def _mean_change(
    flat: UInt8[np.ndarray, "n p"], starts: np.ndarray, length: int
) -> Float32[np.ndarray, " k"]:
    before = flat[starts].astype(np.int16)
    change: np.ndarray = np.abs(flat[starts + length] - before).mean(axis=1, dtype=np.float32)
    return change


def _mixture(
    flat: UInt8[np.ndarray, "n p"], starts: np.ndarray, length: int
) -> tuple[Float32[np.ndarray, "k m"], Float32[np.ndarray, "k i"]]:
    """Return the mixing shares from end to end, and each frame's unexplained share."""
    ends = flat[starts].astype(np.float32)
    difference = flat[starts + length] - ends
    change = np.abs(difference).mean(axis=1)
    power = np.square(difference).sum(axis=1)
    shares = [np.zeros(len(starts), dtype=np.float32)]
    residuals = []
    for step in range(1, _INTERIOR + 1):
        frame = flat[starts + round(step * length / (_INTERIOR + 1))] - ends
        share = np.clip((frame * difference).sum(axis=1) / power, 0, 1)
        residuals.append(np.abs(frame - share[:, None] * difference).mean(axis=1) / change)
        shares.append(share)
    shares.append(np.ones(len(starts), dtype=np.float32))
    return np.stack(shares, axis=1), np.stack(residuals, axis=1)


def _trim(frames: UInt8[np.ndarray, "n p"]) -> tuple[int, int]:
    """Return the part [low, high) of a window in which the mixture moves."""
    first = frames[0].astype(np.float32)
    difference = frames[-1] - first
    shares = (frames - first) @ difference / np.square(difference).sum()
    low = int(np.argmax(shares > _EDGE))
    high = len(shares) - int(np.argmax(shares[::-1] < 1 - _EDGE))
    return low, max(high, low + 1)


def join_blends(blends: Iterable[Blend]) -> tuple[Blend, ...]:
    """Join stretches that overlap; the best residual and the largest change stand for all."""
    joined: list[Blend] = []
    for blend in sorted(blends, key=lambda blend: (blend.start, blend.stop)):
        if joined and blend.start <= joined[-1].stop:
            last = joined[-1]
            joined[-1] = Blend(
                start=last.start,
                stop=max(last.stop, blend.stop),
                residual=min(last.residual, blend.residual),
                change=max(last.change, blend.change),
            )
        else:
            joined.append(blend)
    return tuple(joined)
