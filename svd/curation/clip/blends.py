"""Fades and dissolves, known by what they are: each frame a mixture of the two ends.

In a dissolve from picture A to picture B every frame is (1 - a) A + a B with a rising from 0 to 1;
a fade is a dissolve from or to one colour. Camera and object motion change the picture just as
much over the same time, but what lies between is no mixture of the ends. Where the camera moves
during a dissolve, the ends are first moved along with it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from svd.curation.annotate.camera import CameraMotion, fit_camera

BLENDS_VERSION = "2"
_WINDOWS_S = (1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0, 4.0, 6.0)
_INTERIOR = 7  # frames looked at between the two ends of a window
_MAX_STEP = 0.45  # of the mixing share between two of them; a hard cut has 1
_MIN_RISE = 0.3  # of the share between the first and the last of them
_MIN_STEP = -0.1  # a transition does not go back, but for noise
_MAX_TO_MEAN = 1.5  # worst to tolerated mean residual; motion is a mixture at times, not throughout
_RISE = (0.2, 0.8)  # shares between which a transition's speed is measured
_AS_GOOD = 2.0  # residual against the best of overlapping windows, to count beside it
_GOOD_RESIDUAL = 0.05  # below it a window counts whatever the best one has
_CHUNK = 4096  # windows measured at once, to bound memory
_MOTION_FRAMES = 3  # over which a shot's camera motion is measured beside the window
_MOVED_WINDOWS_S = (1 / 2, 1.0, 2.0)  # longest within which a camera's motion is taken for steady
_MOVED_STRIDE = 4  # starts per window length where ends are moved; else 8
_MOVED_MAX_RESIDUAL = 0.12  # moved ends explain a dissolve nearly whole, or it is none
_MOVED_MIN_FRAMES = 4  # of the interior ones that the moved ends must cover
_FLOW_SCALE = 4  # thumbnails are enlarged for DIS, whose patches are 8 px wide
_MAX_LEFT = 0.5  # of the change, by which moving one end may miss the other within a shot
_MIN_VALID = 0.3  # share of the picture that both moved ends must still cover
_MIN_DIP = 0.5  # of the loss of variance that mixing the ends half and half must cost


@dataclass(frozen=True, slots=True)
class Blend:
    """A stretch of frames [start, stop) that mixes what lies before with what lies after."""

    start: int
    stop: int
    residual: float  # share of the change that mixing leaves unexplained; 0: a perfect dissolve
    change: float  # mean luma difference between both ends, 0..255


@dataclass(frozen=True, slots=True)
class BlendLimits:
    """What counts as a mixture."""

    max_residual: float  # share of the change that mixing may leave unexplained, 0..1
    min_change: float  # mean luma difference of the ends, 0..255


def find_blends(
    thumbs: UInt8[np.ndarray, "n h w"],
    *,
    fps: float,
    max_gradual_s: float,
    limits: BlendLimits,
    is_suspect: Callable[[int, int], bool],
) -> tuple[Blend, ...]:
    """Return every window of a video that looks like (a part of) a fade or dissolve.

    Windows of several lengths are tried, so one transition gives many overlapping stretches, each
    narrowed to where the mixture moves; `join_blends` makes one of them.

    Args:
        thumbs: Small luma pictures of all frames.
        fps: Mean frame rate.
        max_gradual_s: Longest transition looked for.
        limits: What counts.
        is_suspect: Of frames [start, stop): whether moving the ends along is worth its time.
    """
    search = _Search(thumbs, limits, is_suspect)
    found: list[Blend] = []
    for window_s in _WINDOWS_S:
        length = max(_INTERIOR + 1, round(window_s * fps))
        if window_s <= max_gradual_s and length < len(thumbs):
            found.extend(search.windows(length))
            if window_s in _MOVED_WINDOWS_S:
                found.extend(search.moved_windows(length))
    return tuple(found)


class _Search:
    def __init__(
        self,
        thumbs: UInt8[np.ndarray, "n h w"],
        limits: BlendLimits,
        is_suspect: Callable[[int, int], bool],
    ) -> None:
        self._thumbs = thumbs
        self._flat = thumbs.reshape(len(thumbs), -1)
        self._limits = limits
        self._is_suspect = is_suspect
        self._motion_between = cache(self._measure_motion)

    def windows(self, length: int) -> Iterator[Blend]:
        """Yield the mixtures among windows of one length."""
        all_starts = np.arange(0, len(self._flat) - length, max(1, length // 8))
        for first in range(0, len(all_starts), _CHUNK):
            starts = all_starts[first : first + _CHUNK]
            change = _mean_change(self._flat, starts, length)
            is_changed = change >= self._limits.min_change
            starts = starts[is_changed]
            if not len(starts):
                continue
            shares, residuals = _mixtures(self._flat, starts, length)
            is_mixture = _are_mixtures(shares, residuals, self._limits.max_residual)
            for start in starts[is_mixture].tolist():
                if not self._is_one_shot(start, start + length):
                    ends = _Ends(self._thumbs, start, start + length)
                    yield self._narrowed(ends, start, start + length)

    def moved_windows(self, length: int) -> Iterator[Blend]:
        """Yield the mixtures among windows of one length whose ends move with their shots."""
        for start in range(0, len(self._flat) - length, max(1, length // _MOVED_STRIDE)):
            stop = start + length
            if self._is_suspect(start, stop):
                ends = self._moved_ends(start, stop)
                if ends is not None:
                    yield self._narrowed(ends, start, stop)

    def _is_one_shot(self, start: int, stop: int) -> bool:
        """Return whether the camera's motion beside a window leads from one end to the other.

        A slow pan over soft shapes comes near a mixture; but it goes on as it began.
        """
        last = len(self._thumbs) - 1
        before = self._motion_between(max(0, start - _MOTION_FRAMES), start)
        after = self._motion_between(stop, min(last, stop + _MOTION_FRAMES))
        return self._leads(start, before, stop) or self._leads(stop, after, start)

    def _leads(self, frame: int, motion: CameraMotion | None, other: int) -> bool:
        if motion is None:
            return False
        moved, is_valid = _move(self._thumbs[frame], motion, other - frame)
        if is_valid.mean() < _MIN_VALID:
            return False
        target = self._thumbs[other].astype(np.float32)
        left = np.abs(moved - target)[is_valid].mean()
        change = np.abs(self._thumbs[frame] - target)[is_valid].mean()
        return bool(left < _MAX_LEFT * change)

    def _moved_ends(self, start: int, stop: int) -> "_Ends | None":
        """Return the window's ends moved along with their shots, if that makes it a mixture."""
        if not self._has_dip(start, stop):
            return None
        before = self._motion_between(max(0, start - _MOTION_FRAMES), start)
        after = self._motion_between(stop, min(len(self._thumbs) - 1, stop + _MOTION_FRAMES))
        if before is None or after is None:
            return None
        ends = _Ends(self._thumbs, start, stop, before, after)
        middle = ends.mixture((start + stop) // 2)
        if middle is None or middle.residual > _MAX_TO_MEAN * _MOVED_MAX_RESIDUAL:
            return None  # the quick answer, right for nearly all
        parts = [one for frame in _interior(start, stop) if (one := ends.mixture(frame))]
        if len(parts) < _MOVED_MIN_FRAMES:
            return None
        shares = np.array([one.share for one in parts], dtype=np.float32)
        residuals = np.array([one.residual for one in parts], dtype=np.float32)
        if min(one.change for one in parts) < self._limits.min_change:
            return None
        is_mixture = _are_mixtures(shares[None], residuals[None], _MOVED_MAX_RESIDUAL)
        return ends if is_mixture[0] else None

    def _has_dip(self, start: int, stop: int) -> bool:
        """Return whether some frame between has as little variance as a mixture of the ends.

        Var((1 - a) A + a B) = (1 - a) Var A + a Var B - a (1 - a) Var(B - A): mixing costs
        contrast, moving does not. It is quick to see, and spares most windows the flow of their
        shots.
        """
        first, last = (self._flat[frame].astype(np.float32) for frame in (start, stop))
        middle = self._flat[_interior(start, stop)].astype(np.float32).var(axis=1)
        shares = np.linspace(0, 1, _INTERIOR + 2, dtype=np.float32)[1:-1]
        unmixed = (1 - shares) * first.var() + shares * last.var()
        loss = float((last - first).var()) / 4  # at equal shares
        return bool((unmixed - middle).max() >= _MIN_DIP * loss)

    def _measure_motion(self, first: int, last: int) -> CameraMotion | None:
        """Return the camera motion between two frames of a shot; None without frames between."""
        if last <= first:
            return None
        size = (self._thumbs.shape[2] * _FLOW_SCALE, self._thumbs.shape[1] * _FLOW_SCALE)
        before, after = (
            cv2.resize(self._thumbs[frame], size, interpolation=cv2.INTER_LINEAR)
            for frame in (first, last)
        )
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        flow = dis.calc(before, after, np.zeros((*size[::-1], 2), dtype=np.float32))
        small = np.asarray(flow)[_FLOW_SCALE // 2 :: _FLOW_SCALE, _FLOW_SCALE // 2 :: _FLOW_SCALE]
        return fit_camera(small / _FLOW_SCALE, pixel_px=1.0)

    def _narrowed(self, ends: "_Ends", start: int, stop: int) -> Blend:
        """Return the stretch over which the mixture goes from one end to the other.

        The speed is measured in the middle of the rise and taken for its edges too: there motion
        alone keeps the share from reaching its end.
        """
        mixed = {frame: ends.mixture(frame) for frame in range(start, stop + 1)}
        known = {frame: one for frame, one in mixed.items() if one is not None}
        shares = np.interp(list(mixed), list(known), [one.share for one in known.values()])
        inner = [one for frame in _interior(start, stop) if (one := mixed[frame])]
        low, high = (float(np.argmax(shares > level)) for level in _RISE)
        margin = (high - low) * _RISE[0] / (_RISE[1] - _RISE[0])
        return Blend(
            start=start + max(0, int(np.floor(low - margin))),
            stop=start + min(len(shares), int(np.ceil(high + margin)) + 1),
            residual=float(np.mean([one.residual for one in inner])),
            change=float(np.mean([one.change for one in inner])),
        )


def _are_mixtures(
    shares: Float32[np.ndarray, "k m"], residuals: Float32[np.ndarray, "k i"], max_residual: float
) -> Bool[np.ndarray, " k"]:
    """Return which windows are mixtures: little is unexplained, and the share rises evenly."""
    steps = np.diff(shares, axis=1)
    worst = np.maximum(residuals.mean(axis=1), residuals.max(axis=1) / _MAX_TO_MEAN)
    is_mixture: np.ndarray = (
        (worst <= max_residual)
        & (steps.max(axis=1) < _MAX_STEP)
        & (steps.min(axis=1) > _MIN_STEP)
        & (shares[:, -1] - shares[:, 0] > _MIN_RISE)
    )
    return is_mixture


def _interior(start: int, stop: int) -> list[int]:
    return [
        start + round(step * (stop - start) / (_INTERIOR + 1)) for step in range(1, _INTERIOR + 1)
    ]


def _mean_change(
    flat: UInt8[np.ndarray, "n p"], starts: np.ndarray, length: int
) -> Float32[np.ndarray, " k"]:
    before = flat[starts].astype(np.int16)
    change: np.ndarray = np.abs(flat[starts + length] - before).mean(axis=1, dtype=np.float32)
    return change


def _mixtures(
    flat: UInt8[np.ndarray, "n p"], starts: np.ndarray, length: int
) -> tuple[Float32[np.ndarray, "k m"], Float32[np.ndarray, "k i"]]:
    """Return the mixing shares from end to end, and each frame's unexplained share."""
    ends = flat[starts].astype(np.float32)
    difference = flat[starts + length] - ends
    change = np.abs(difference).mean(axis=1)
    power = np.square(difference).sum(axis=1)
    shares = [np.zeros(len(starts), dtype=np.float32)]
    residuals = []
    for offset in _interior(0, length):
        frame = flat[starts + offset] - ends
        share = np.clip((frame * difference).sum(axis=1) / power, 0, 1)
        residuals.append(np.abs(frame - share[:, None] * difference).mean(axis=1) / change)
        shares.append(share)
    shares.append(np.ones(len(starts), dtype=np.float32))
    return np.stack(shares, axis=1), np.stack(residuals, axis=1)


@dataclass(frozen=True, slots=True)
class _Mixed:
    """One frame as a mixture of a window's ends."""

    share: float  # of the later end, 0..1
    residual: float
    change: float  # mean luma difference of the ends where both are known


class _Ends:
    """The two ends of a window, moved along with their shots' cameras if their motion is given."""

    def __init__(
        self,
        thumbs: UInt8[np.ndarray, "n h w"],
        start: int,
        stop: int,
        before: CameraMotion | None = None,
        after: CameraMotion | None = None,
    ) -> None:
        self._thumbs = thumbs
        self._ends = ((start, before), (stop, after))

    def mixture(self, frame: int) -> _Mixed | None:
        """Return a frame as a mixture; None if the moved ends cover too little of it."""
        (first, is_first), (last, is_last) = (
            self._at(end, motion, frame) for end, motion in self._ends
        )
        valid = is_first & is_last
        if valid.mean() < _MIN_VALID:
            return None
        first, last = first[valid], last[valid]
        difference = last - first
        change = float(np.abs(difference).mean())
        offset = self._thumbs[frame][valid] - first
        share = float(np.clip((offset @ difference) / max(1e-6, difference @ difference), 0, 1))
        left = float(np.abs(offset - share * difference).mean())
        return _Mixed(share=share, residual=left / max(1e-6, change), change=change)

    def _at(
        self, end: int, motion: CameraMotion | None, frame: int
    ) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        picture = self._thumbs[end]
        if motion is None:
            return picture.astype(np.float32), np.ones(picture.shape, dtype=bool)
        return _move(picture, motion, frame - end)


def _move(
    picture: UInt8[np.ndarray, "h w"], motion: CameraMotion, num_frames: int
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Return a picture as it looks some frames later (or earlier), and where that is known."""
    steps = num_frames / _MOTION_FRAMES
    height, width = picture.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    turn = np.eye(2) + steps * np.array([[motion.zoom, -motion.roll], [motion.roll, motion.zoom]])
    shift = steps * np.array([motion.shift_x, motion.shift_y]) + centre - turn @ centre
    matrix = np.column_stack([turn, shift])
    floats = picture.astype(np.float32)
    moved = cv2.warpAffine(floats, matrix, (width, height), borderValue=(0.0,))
    # Interpolation with the border taints its neighbours: only what is wholly inside is known.
    inside = cv2.warpAffine(np.ones_like(floats), matrix, (width, height), borderValue=(0.0,))
    return np.asarray(moved), np.asarray(inside) > 0.999


def join_blends(blends: Iterable[Blend]) -> tuple[Blend, ...]:
    """Make one stretch of all that overlap and are about as good as the best among them.

    A window that reaches beyond a transition into moving pictures is a poorer mixture than one
    that does not; what only such windows claim is left out.
    """
    joined: list[Blend] = []
    for group in _overlapping(blends):
        limit = max(_GOOD_RESIDUAL, _AS_GOOD * min(blend.residual for blend in group))
        good = [blend for blend in group if blend.residual <= limit]
        joined += [
            Blend(
                start=part[0].start,
                stop=max(blend.stop for blend in part),
                residual=min(blend.residual for blend in part),
                change=max(blend.change for blend in part),
            )
            for part in _overlapping(good)
        ]
    return tuple(joined)


def _overlapping(blends: Iterable[Blend]) -> list[list[Blend]]:
    """Return the blends in order of start, divided where none reaches over."""
    groups: list[list[Blend]] = []
    reach = -1
    for blend in sorted(blends, key=lambda blend: (blend.start, blend.stop)):
        if blend.start < reach:
            groups[-1].append(blend)
        else:
            groups.append([blend])
        reach = max(reach, blend.stop)
    return groups


def overlaps(spans: Sequence[tuple[int, int]], start: int, stop: int) -> bool:
    """Return whether any half-open span has a frame in [start, stop)."""
    return any(low < stop and start < high for low, high in spans)
