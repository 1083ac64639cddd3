"""Shot boundaries from the scores of one decode pass: hard cuts, fades, dissolves.

The cascade: AdaptiveDetector at the native rate finds hard cuts. ContentDetector at two lower
rates turns slow transitions into jumps; such a hit counts only where the frames in between are
mixtures of its two ends, because fast motion makes the same jumps. Mixtures strong enough to
leave no doubt count without a hit. ThresholdDetector's hits count as those of the slow detectors
do, and runs of frames of one colour belong to no shot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from svd.config.curation import CutConfig
from svd.curation.clip.blends import (
    BLENDS_VERSION,
    Blend,
    BlendLimits,
    find_blends,
    join_blends,
    overlaps,
)
from svd.curation.clip.detectors import (
    adaptive_hits,
    content_hits,
    detector_version,
    threshold_hits,
)
from svd.curation.clip.track import FrameTrack
from svd.types.video import Cut

CASCADE_VERSION = "1"
_SUSPECT_SHARE = 0.6  # of the slowest detector's threshold, from which a dissolve is looked for


@dataclass(frozen=True, slots=True)
class CutReport:
    """What each step of the cascade said, for the stage's report."""

    num_native_hits: int
    num_mid_hits: int
    num_low_hits: int
    num_dark_hits: int
    num_hits_of_motion: int  # hits at a lower rate that are neither a cut nor a mixture
    disputed: tuple[tuple[int, int], ...]  # (frame before, frame): what one kind of detector saw


def detect_cuts(
    track: FrameTrack, config: CutConfig, *, video_id: str, fps: float
) -> tuple[tuple[Cut, ...], CutReport]:
    """Return all shot boundaries of a video, in order, none inside another.

    Args:
        track: The whole video's.
        config: Rates and thresholds.
        video_id: Goes into the records.
        fps: Mean frame rate.
    """
    native = adaptive_hits(
        track.frame_numbers(track.native_pts),
        track.native_score,
        threshold=config.adaptive_threshold,
        window=config.adaptive_window,
        min_score=config.adaptive_min_score,
        min_shot_frames=config.min_shot_frames,
    )
    mid = _intervals(track, track.mid_pts, track.mid_score, config.mid_threshold)
    low = _intervals(track, track.low_pts, track.low_score, config.low_threshold)
    dark = [
        (hit - 1, hit + 1) for hit in threshold_hits(track.mean_rgb, threshold=config.dark_level)
    ]
    unexplained = [
        span for span in [*mid, *low, *dark] if not any(span[0] < cut <= span[1] for cut in native)
    ]
    blends = _confirmed_blends(track, unexplained, config, fps=fps)
    gradual = _gradual_cuts(track, blends, config, video_id=video_id)
    score_of = dict(
        zip(track.frame_numbers(track.native_pts).tolist(), track.native_score, strict=True)
    )
    hard = [
        Cut(
            video_id=video_id,
            start_frame=frame,
            stop_frame=frame,
            kind="hard",
            score=round(float(score_of[frame]), 3),
            detector=f"adaptive@native {detector_version()}",
        )
        for frame in native
        if not any(cut.start_frame <= frame < cut.stop_frame for cut in gradual)
    ]
    of_motion = [
        span
        for span in unexplained
        if not any(cut.start_frame < span[1] and span[0] < cut.stop_frame for cut in gradual)
    ]
    report = CutReport(
        num_native_hits=len(native),
        num_mid_hits=len(mid),
        num_low_hits=len(low),
        num_dark_hits=len(dark),
        num_hits_of_motion=len(of_motion),
        disputed=tuple(sorted({*of_motion, *_seen_by_one(hard, [*mid, *low, *dark])})),
    )
    cuts = sorted([*hard, *gradual], key=lambda cut: (cut.start_frame, cut.stop_frame))
    return tuple(cuts), report


def _seen_by_one(hard: Sequence[Cut], slower: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the hard cuts that no slower detector saw, as spans."""
    frames = [cut.start_frame for cut in hard]
    return [
        (frame - 1, frame)
        for frame in frames
        if not any(low < frame <= high for low, high in slower)
    ]


def _intervals(
    track: FrameTrack, pts: np.ndarray, scores: np.ndarray, threshold: float
) -> list[tuple[int, int]]:
    """Return (previous sample, sample) in frame numbers for each hit at a lower rate."""
    numbers = track.frame_numbers(pts)  # none in a video shorter than a step of this rate
    previous = dict(zip(numbers.tolist(), [0, *numbers.tolist()], strict=False))
    return [(previous[hit], hit) for hit in content_hits(numbers, scores, threshold=threshold)]


def _confirmed_blends(
    track: FrameTrack,
    hits: Sequence[tuple[int, int]],
    config: CutConfig,
    *,
    fps: float,
) -> tuple[Blend, ...]:
    suspects = _intervals(
        track, track.low_pts, track.low_score, _SUSPECT_SHARE * config.low_threshold
    )
    blends = find_blends(
        track.thumbs,
        fps=fps,
        max_gradual_s=config.max_gradual_s,
        limits=BlendLimits(config.blend_residual, config.blend_min_change),
        is_suspect=lambda start, stop: overlaps(suspects, start, stop),
    )
    return join_blends(
        blend
        for blend in blends
        if (
            blend.residual <= config.blend_residual_alone
            and blend.change >= config.blend_min_change_alone
        )
        or overlaps(hits, blend.start, blend.stop)
    )


def _gradual_cuts(
    track: FrameTrack, blends: Sequence[Blend], config: CutConfig, *, video_id: str
) -> list[Cut]:
    """Join mixtures with the frames of one colour they lead to, and name their kind."""
    is_flat = track.contrast < config.flat_contrast
    is_dark = track.mean_rgb < config.dark_level
    spans = [(blend.start, blend.stop, blend.change) for blend in blends]
    spans += [(start, stop, 0.0) for start, stop in _runs(is_flat) if stop - start > 1]
    cuts: list[Cut] = []
    for start, stop, change in _join(spans):
        around = slice(max(0, start - 2), stop + 2)
        kind: Literal["fade", "dissolve"] = (
            "fade" if (is_flat | is_dark)[around].any() else "dissolve"
        )
        cuts.append(
            Cut(
                video_id=video_id,
                start_frame=start,
                stop_frame=stop,
                kind=kind,
                score=round(change, 3),
                detector=f"blend {BLENDS_VERSION} cascade {CASCADE_VERSION} {detector_version()}",
            )
        )
    return cuts


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return the half-open runs of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _join(spans: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    joined: list[tuple[int, int, float]] = []
    for start, stop, change in sorted(spans):
        if joined and start <= joined[-1][1]:
            last = joined[-1]
            joined[-1] = (last[0], max(last[1], stop), max(last[2], change))
        else:
            joined.append((start, stop, change))
    return joined


@dataclass(frozen=True, slots=True)
class Shot:
    """Frames [start, stop) of one camera take, and whether its ends border on a transition."""

    start: int
    stop: int


def shots_between(cuts: Sequence[Cut], *, num_frames: int, guard_frames: int) -> tuple[Shot, ...]:
    """Return the shots that the cuts leave.

    Args:
        cuts: In order.
        num_frames: Of the video.
        guard_frames: Frames to keep away from each side of a fade or dissolve.
    """
    shots: list[Shot] = []
    start = 0
    for cut in cuts:
        guard = 0 if cut.kind == "hard" else guard_frames
        stop = cut.start_frame - guard
        if stop > start:
            shots.append(Shot(start, stop))
        start = max(start, cut.stop_frame + guard)
    if num_frames > start:
        shots.append(Shot(start, num_frames))
    return tuple(shots)
