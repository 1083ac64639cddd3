"""Which frames of a shot become a clip, so that a stream copy holds exactly those.

Only the start of a stream copy needs a keyframe. Its end needs a place where no earlier packet
shows a later frame: packets up to there, in decode order, show exactly the frames before it.
"""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int64

from svd.config.curation import ClipConfig
from svd.curation.clip.cuts import Shot
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

    Of all ways to copy parts of a shot, the one that keeps most frames in fewest clips is taken.
    Where it keeps too little, the whole shot is re-encoded instead, in parts of equal length.

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
    longest = int(Fraction(config.max_clip_s) / time_base)
    shortest = math.ceil(Fraction(config.min_clip_s) / time_base)
    spans: list[ClipSpan] = []
    dropped: list[DroppedSpan] = []
    for shot in shots:
        if ticks[shot.stop] - ticks[shot.start] < shortest:
            dropped.append(_dropped(video_id, shot, "shot-too-short"))
            continue
        parts = _best_copies(shot, points, ticks, shortest=shortest, longest=longest)
        kept = sum(part.stop - part.start for part in parts)
        is_copy = bool(parts) and kept >= config.min_copy_share * (shot.stop - shot.start)
        if not is_copy:
            parts = _equal_parts(shot, ticks, longest=longest)
        spans += [
            ClipSpan(
                video_id=video_id,
                start_frame=part.start,
                stop_frame=part.stop,
                start_pts=int(ticks[part.start]),
                stop_pts=int(ticks[part.stop]),
                time_base=time_base,
                method="copy" if is_copy else "reencode",
            )
            for part in parts
        ]
        dropped += [_dropped(video_id, gap, "between-keyframes") for gap in _gaps(shot, parts)]
    return ClipPlan(spans=tuple(spans), dropped=tuple(dropped))


def _dropped(video_id: str, shot: Shot, reason: str) -> DroppedSpan:
    return DroppedSpan(
        video_id=video_id, start_frame=shot.start, stop_frame=shot.stop, reason=reason
    )


def _gaps(shot: Shot, parts: Sequence[Shot]) -> list[Shot]:
    """Return what the parts leave out of a shot."""
    edges = [shot.start, *(edge for part in parts for edge in (part.start, part.stop)), shot.stop]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [Shot(start, stop) for start, stop in pairs if stop > start]


def _equal_parts(shot: Shot, ticks: Int64[np.ndarray, " n"], *, longest: int) -> list[Shot]:
    """Split a shot into the fewest parts of nearly equal duration, none longer than allowed."""
    start, stop = int(ticks[shot.start]), int(ticks[shot.stop])
    num = math.ceil((stop - start) / longest)
    marks = [start + (stop - start) * part // num for part in range(1, num)]
    inner = np.searchsorted(ticks, marks).tolist()
    edges = [shot.start, *inner, shot.stop]
    return [Shot(low, high) for low, high in itertools.pairwise(edges) if high > low]


def _best_copies(
    shot: Shot,
    points: CopyPoints,
    ticks: Int64[np.ndarray, " n"],
    *,
    shortest: int,
    longest: int,
) -> list[Shot]:
    """Return the copies that keep most frames of a shot, and of these ways the one of fewest.

    Dynamic programming over the keyframes, last first. From each, a part ends at the last place
    before some later keyframe, or as late as its length allows; or the keyframe is passed by.
    """
    starts = points.starts[(points.starts >= shot.start) & (points.starts < shot.stop)].tolist()
    stops = points.stops[(points.stops > shot.start) & (points.stops <= shot.stop)]
    if not len(stops):
        return []
    bounds = np.array([*starts, shot.stop], dtype=np.int64)
    before = np.searchsorted(stops, bounds, side="right") - 1
    last_stops = np.unique(stops[before[before >= 0]])
    best: list[tuple[int, int, list[Shot]]] = [(0, 0, [])]  # (kept, -parts, parts) from start on
    for position in range(len(starts) - 1, -1, -1):
        start = starts[position]
        low = int(np.searchsorted(ticks, ticks[start] + shortest))
        high = int(np.searchsorted(ticks, ticks[start] + longest, side="right")) - 1
        ends = last_stops[(last_stops >= low) & (last_stops <= high)].tolist()
        ends += stops[(stops >= low) & (stops <= high)][-1:].tolist()
        choices = [best[0]]
        for end in ends:
            following = bisect.bisect_left(starts, end)
            kept, negative_parts, parts = best[following - position - 1]
            choices.append((kept + end - start, negative_parts - 1, [Shot(start, end), *parts]))
        best.insert(0, max(choices, key=lambda choice: choice[:2]))
    return best[0][2]
