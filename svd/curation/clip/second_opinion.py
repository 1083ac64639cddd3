"""Where the cascade's detectors disagree, a network has the last word.

Two disputes: a slower detector saw a jump that neither the native one nor a mixture explains
(mostly fast motion, now and then a cut that they missed); or the native one alone saw a cut (mostly
a true one between like pictures, now and then a flash). Only those stretches are decoded once more.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from svd.config.curation import CutNetworkConfig
from svd.media.decode import PacketIndex, PictureMaker, decode_frames
from svd.types.video import Cut

CONTEXT = 25  # frames before and after a dispute that the network sees as well
_SLACK = 2  # frames by which a cut and the network's peak may differ
_HARD_FRAMES = 2  # a transition of more frames than this is gradual


@dataclass(frozen=True, slots=True)
class Opinion:
    """Probabilities, 0..1, of consecutive frames from `first` on."""

    first: int
    last_before_cut: Float32[np.ndarray, " t"]
    within: Float32[np.ndarray, " t"]  # that a frame belongs to a transition


class CutNetwork(Protocol):
    """Looks at small pictures of consecutive frames."""

    def look(self, first: int, frames: UInt8[np.ndarray, "t h w 3"]) -> Opinion:
        """Return the network's opinion of RGB frames that begin at number `first`."""
        ...


def windows_around(disputed: Sequence[tuple[int, int]], *, num_frames: int) -> list[range]:
    """Return the stretches to look at, with context, joined where they overlap."""
    windows: list[range] = []
    for start, stop in sorted(disputed):
        low, high = max(0, start - CONTEXT), min(num_frames, stop + 1 + CONTEXT)
        if windows and low <= windows[-1].stop:
            windows[-1] = range(windows[-1].start, max(high, windows[-1].stop))
        else:
            windows.append(range(low, high))
    return windows


def settle(
    cuts: Sequence[Cut],
    disputed: Sequence[tuple[int, int]],
    opinions: Iterable[Opinion],
    config: CutNetworkConfig,
    *,
    video_id: str,
    detector: str,
) -> tuple[Cut, ...]:
    """Return the cuts after the network's word on every disputed span, in order.

    Args:
        cuts: The cascade's.
        disputed: Spans (last undisputed frame, frame of the hit).
        opinions: Of all windows around them.
        config: Probabilities from which a cut is added, below which one is taken back.
        video_id: Goes into new records.
        detector: Name and version, likewise.
    """
    settled = list(cuts)
    spans = sorted(disputed)
    for opinion in opinions:
        stop = opinion.first + len(opinion.last_before_cut)
        for low, high in (span for span in spans if opinion.first <= span[0] and span[1] < stop):
            inside = [cut for cut in settled if _touches(cut, low, high)]
            if any(cut.kind != "hard" for cut in inside):
                continue
            if inside:
                for cut in inside:
                    if _peak(opinion, cut.start_frame - 1) < config.drop_below:
                        settled.remove(cut)
                continue
            added = _seen(opinion, low, high, config, video_id=video_id, detector=detector)
            if added is not None:
                settled.append(added)
    return tuple(sorted(settled, key=lambda cut: (cut.start_frame, cut.stop_frame)))


def _touches(cut: Cut, low: int, high: int) -> bool:
    return cut.start_frame <= high + _SLACK and max(cut.stop_frame, cut.start_frame) > low - _SLACK


def _peak(opinion: Opinion, frame: int) -> float:
    """Return the greatest probability of a cut near a frame."""
    place = frame - opinion.first
    near = slice(max(0, place - _SLACK), max(0, place + _SLACK + 1))
    return float(opinion.last_before_cut[near].max(initial=0.0))


def _seen(
    opinion: Opinion,
    low: int,
    high: int,
    config: CutNetworkConfig,
    *,
    video_id: str,
    detector: str,
) -> Cut | None:
    """Return the cut that the network sees between two frames, if it does."""
    scores = opinion.last_before_cut[low - opinion.first : high - opinion.first]
    if not len(scores) or float(scores.max()) < config.add_above:
        return None
    peak = low - opinion.first + int(scores.argmax())
    start = stop = peak
    is_within = opinion.within >= config.add_above
    while start > 0 and is_within[start - 1]:
        start -= 1
    while stop + 1 < len(is_within) and is_within[stop + 1]:
        stop += 1
    is_gradual = stop - start + 1 > _HARD_FRAMES
    cut = opinion.first + peak + 1
    return Cut(
        video_id=video_id,
        start_frame=opinion.first + start if is_gradual else cut,
        stop_frame=opinion.first + stop + 1 if is_gradual else cut,
        kind="dissolve" if is_gradual else "hard",
        score=round(float(scores.max()), 3),
        detector=detector,
    )


def look_at(
    path: Path,
    windows: Sequence[range],
    network: CutNetwork,
    *,
    frame_pts: Int64[np.ndarray, " n"],
    index: PacketIndex,
    rotation: int,
    size: tuple[int, int],
) -> Iterator[Opinion]:
    """Decode windows of a video and yield the network's opinion of each.

    Args:
        path: The video.
        windows: Of frame numbers, in order, disjoint.
        network: What looks.
        frame_pts: Of all frames.
        index: Of the video's packets: where decoding may start.
        rotation: Degrees clockwise to apply.
        size: Width and height of the pictures that the network takes.

    Raises:
        MediaError: The video cannot be read.
    """
    picture = PictureMaker(width=size[0], height=size[1], rotation=rotation)
    keys = np.sort(index.pts[index.is_keyframe]) if index.is_seekable else index.pts[:0]
    for window in windows:
        before = keys[keys <= frame_pts[window.start]]
        start_pts = int(before[-1]) if len(before) > 1 else None
        first_pts, last_pts = int(frame_pts[window.start]), int(frame_pts[window.stop - 1])
        frames = []
        for pts, frame in decode_frames(path, start_pts=start_pts):
            if pts > last_pts:
                break
            if pts >= first_pts:
                frames.append(np.ascontiguousarray(picture(frame)[..., ::-1]))
        if len(frames) == len(window):
            yield network.look(window.start, np.stack(frames))
