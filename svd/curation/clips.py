"""Which frames of a shot become a clip, so that a stream copy holds exactly those.

Only the start of a stream copy needs a keyframe. Its end needs a place where no earlier packet
shows a later frame: packets up to there, in decode order, show exactly the frames before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int64

from svd.config.curation import ClipConfig
from svd.curation.cuts import Shot
from svd.media.decode import PacketIndex
from svd.types.video import ClipSpan, DroppedSpan

COPYABLE_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})  # what an mp4 may hold


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """All clips of a video, in order, and what was left out."""

    spans: tuple[ClipSpan, ...]
    dropped: tuple[DroppedSpan, ...]


@dataclass(frozen=True, slots=True)
class CopyPoints:
    """Where stream copies of a video may start and stop, as frame numbers, ascending."""

    starts: Int64[np.ndarray, " k"]
    stops: Int64[np.ndarray, " m"]


def copy_points(index: PacketIndex, frame_pts: Int64[np.ndarray, " n"]) -> CopyPoints:
    """Return where a stream copy may start (keyframes) and stop (decode order is complete).

    There is no such place if an mp4 cannot hold the codec, or if the packets are not one for one
    the frames that decode: then only decoding tells what a copy would show.
    """
    shown = np.sort(index.pts[index.is_shown])
    if (
        index.codec not in COPYABLE_CODECS
        or index.num_untimed
        or not np.array_equal(shown, frame_pts)
    ):
        nothing = np.zeros(0, dtype=np.int64)
        return CopyPoints(starts=nothing, stops=nothing)
    keys = np.sort(index.pts[index.is_keyframe & index.is_shown])
    closed = np.append(first_pts_after(index)[_is_closed(index)], frame_pts[-1] + 1)
    return CopyPoints(
        starts=np.searchsorted(frame_pts, keys).astype(np.int64),
        stops=np.unique(np.searchsorted(frame_pts, closed)).astype(np.int64),
    )


def first_pts_after(index: PacketIndex) -> Int64[np.ndarray, " k"]:
    """Return, for each packet, the least pts among it and all packets after it."""
    return np.minimum.accumulate(index.pts[::-1])[::-1]


def _is_closed(index: PacketIndex) -> Bool[np.ndarray, " k"]:
    """Return for each packet whether all packets before it show earlier frames."""
    shown_before = np.maximum.accumulate(index.pts)
    closed = np.ones(len(index.pts), dtype=bool)
    closed[1:] = shown_before[:-1] < first_pts_after(index)[1:]
    return closed


def plan_clips(
    shots: Sequence[Shot],
    points: CopyPoints,
    frame_pts: Int64[np.ndarray, " n"],
    config: ClipConfig,
    *,
    video_id: str,
    time_base: Fraction,
    end_pts: int,
) -> ClipPlan:
    """Return the clips of a video.

    A shot is copied from its first keyframe to the last place where a copy may stop. Where that
    keeps too little, the whole shot is re-encoded instead.

    Args:
        shots: Of the video, in order.
        points: Where copies may start and stop.
        frame_pts: Of all frames.
        config: Lengths and the share that decides for re-encoding.
        video_id: Goes into the records.
        time_base: Seconds per tick.
        end_pts: Tick at which the video's last frame ends.
    """
    ticks = np.append(frame_pts, end_pts)
    spans: list[ClipSpan] = []
    dropped: list[DroppedSpan] = []
    for shot in shots:
        if _seconds(ticks, shot.start, shot.stop, time_base) < config.min_clip_s:
            dropped.append(_dropped(video_id, shot.start, shot.stop, "shot-too-short"))
            continue
        copied = _shrink(shot, points)
        kept = 0 if copied is None else copied.stop - copied.start
        is_copy = copied is not None and kept >= config.min_copy_share * (shot.stop - shot.start)
        whole = copied if is_copy and copied is not None else shot
        allowed = points if is_copy else _anywhere(whole)
        for start, stop in _split(whole, allowed, ticks, config, time_base):
            if _seconds(ticks, start, stop, time_base) < config.min_clip_s:
                dropped.append(_dropped(video_id, start, stop, "clip-too-short"))
                continue
            spans.append(
                ClipSpan(
                    video_id=video_id,
                    start_frame=start,
                    stop_frame=stop,
                    start_pts=int(ticks[start]),
                    stop_pts=int(ticks[stop]),
                    time_base=time_base,
                    method="copy" if is_copy else "reencode",
                )
            )
    return ClipPlan(spans=tuple(spans), dropped=tuple(dropped))


def _dropped(video_id: str, start: int, stop: int, reason: str) -> DroppedSpan:
    return DroppedSpan(video_id=video_id, start_frame=start, stop_frame=stop, reason=reason)


def _seconds(ticks: np.ndarray, start: int, stop: int, time_base: Fraction) -> float:
    return float(int(ticks[stop] - ticks[start]) * time_base)


def _shrink(shot: Shot, points: CopyPoints) -> Shot | None:
    """Return the part of a shot that a copy can hold; None if there is none."""
    start = int(np.searchsorted(points.starts, shot.start))
    stop = int(np.searchsorted(points.stops, shot.stop, side="right")) - 1
    if start == len(points.starts) or stop < 0:
        return None
    shrunk = Shot(int(points.starts[start]), int(points.stops[stop]))
    return shrunk if shrunk.stop > shrunk.start else None


def _anywhere(shot: Shot) -> CopyPoints:
    every = np.arange(shot.start, shot.stop + 1)
    return CopyPoints(starts=every, stops=every)


def _split(
    shot: Shot,
    points: CopyPoints,
    ticks: Int64[np.ndarray, " n"],
    config: ClipConfig,
    time_base: Fraction,
) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) of parts no longer than allowed.

    A part ends where the next can start if that leaves it long enough; else it ends at its
    longest, and the next begins at the next possible start.
    """
    seams = np.intersect1d(points.starts, points.stops)
    start = shot.start
    while start < shot.stop:
        if _seconds(ticks, start, shot.stop, time_base) <= config.max_clip_s:
            yield start, shot.stop
            return
        longest = _last_within(ticks, start, config.max_clip_s, time_base)
        shortest = _last_within(ticks, start, config.min_clip_s, time_base) + 1
        inside = seams[(seams >= shortest) & (seams <= longest)]
        if len(inside):
            stop = following = int(inside[-1])
        else:
            stop = int(points.stops[np.searchsorted(points.stops, longest, side="right") - 1])
            after = points.starts[(points.starts > longest) & (points.starts < shot.stop)]
            following = int(after[0]) if len(after) else shot.stop
        if stop > start:
            yield start, stop
        start = following


def _last_within(
    ticks: Int64[np.ndarray, " n"], start: int, length_s: float, time_base: Fraction
) -> int:
    """Return the last stop at which [start, stop) is no longer than this."""
    limit = int(ticks[start]) + int(Fraction(length_s) / time_base)
    return int(np.searchsorted(ticks, limit, side="right")) - 1
