"""What one worker does for one video: decode a segment, cut and copy clips, re-encode some."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from svd.config.curation import ClipConfig
from svd.curation.clip.bank import write_bank
from svd.curation.clip.clips import copy_points, plan_clips
from svd.curation.clip.cuts import CutReport, detect_cuts, shots_between
from svd.curation.clip.scan import Segment, scan_segment
from svd.curation.clip.track import BankFrame, FrameTrack, join_tracks, load_segment, save_segment
from svd.errors import MediaError
from svd.media.decode import index_packets
from svd.media.parts import Part, copy_parts, encode_parts
from svd.types.video import ClipSpan, Cut, DroppedSpan, RawVideo

logger = logging.getLogger(__name__)


def clip_id_of(span: ClipSpan) -> str:
    """Return the name of a clip: it depends on the video's bytes and the span, on nothing else."""
    key = f"{span.video_id}:{span.start_pts}:{span.stop_pts}:{span.time_base}"
    return hashlib.sha256(key.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Decode one segment of one video."""

    video: RawVideo
    path: Path
    segment: Segment
    config: ClipConfig
    target: Path


@dataclass(frozen=True, slots=True)
class FinishTask:
    """Join a video's segments, find its cuts, plan and copy its clips."""

    video: RawVideo
    path: Path
    segments: tuple[Path, ...]
    config: ClipConfig
    out: Path


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """Re-encode a few clips of one video."""

    video: RawVideo
    path: Path
    spans: tuple[ClipSpan, ...]
    config: ClipConfig
    out: Path


@dataclass(frozen=True, slots=True)
class FinishedVideo:
    """What a video came to."""

    video_id: str
    cuts: tuple[Cut, ...]
    spans: tuple[ClipSpan, ...]
    dropped: tuple[DroppedSpan, ...]
    cut_report: CutReport
    num_frames: int
    num_shots: int
    num_shot_frames: int
    num_bad_packets: int
    num_damaged_frames: int


def scan_unit(task: ScanTask) -> None:
    """Decode one segment and store what it gave."""
    scan = scan_segment(
        task.path,
        task.segment,
        task.video.probe,
        cuts=task.config.cuts,
        bank=task.config.bank,
    )
    save_segment(task.target, scan)


def finish_unit(task: FinishTask) -> FinishedVideo:
    """Turn a video's measurements into cuts, a plan, a bank and copied clips."""
    probe = task.video.probe
    video_id = task.video.video_id
    tracks: list[FrameTrack] = []
    num_bad = num_damaged = 0
    for path in task.segments:
        scan = load_segment(path)
        tracks.append(scan.track)
        num_bad += scan.num_bad_packets
        num_damaged += scan.num_damaged_frames
    track = join_tracks(tracks)
    cuts, cut_report = detect_cuts(track, task.config.cuts, video_id=video_id, fps=float(probe.fps))
    shots = shots_between(cuts, num_frames=len(track.pts), guard_frames=task.config.guard_frames)
    index = index_packets(task.path)
    plan = plan_clips(
        shots,
        copy_points(index, track.pts),
        track.pts,
        task.config,
        video_id=video_id,
        time_base=index.time_base,
        end_pts=_end_pts(track.pts, probe.fps, index.time_base),
    )
    write_bank(task.out / "bank" / video_id, track, _stored_frames(task.segments))
    spans = _copy_clips(task, plan.spans)
    return FinishedVideo(
        video_id=video_id,
        cuts=cuts,
        spans=spans,
        dropped=plan.dropped,
        cut_report=cut_report,
        num_frames=len(track.pts),
        num_shots=len(shots),
        num_shot_frames=sum(shot.stop - shot.start for shot in shots),
        num_bad_packets=num_bad,
        num_damaged_frames=num_damaged,
    )


def _stored_frames(segments: tuple[Path, ...]) -> Iterator[BankFrame]:
    for path in segments:
        yield from load_segment(path).frames


def _end_pts(pts: np.ndarray, fps: Fraction, time_base: Fraction) -> int:
    """Return the tick at which the last frame ends: it is shown as long as the one before."""
    if len(pts) > 1:
        return int(2 * pts[-1] - pts[-2])
    return int(pts[-1]) + max(1, round(1 / (fps * time_base)))


def _copy_clips(task: FinishTask, spans: tuple[ClipSpan, ...]) -> tuple[ClipSpan, ...]:
    """Copy the clips that can be; return all spans, those that failed as re-encodes."""
    copies = [span for span in spans if span.method == "copy"]
    if not copies:
        return spans
    failed: set[str] = set()
    try:
        copy_parts(task.path, [_part(span, task.out) for span in copies])
        failed = {clip_id_of(span) for span in copies if not _is_exact(span, task.out)}
    except MediaError as err:
        logger.warning("stream copy failed, re-encoding", extra={"error": str(err)})
        failed = {clip_id_of(span) for span in copies}
    return tuple(
        span.model_copy(update={"method": "reencode"}) if clip_id_of(span) in failed else span
        for span in spans
    )


def _is_exact(span: ClipSpan, out: Path) -> bool:
    """Return whether a copied file shows as many frames as planned, over the planned time."""
    try:
        index = index_packets(_part(span, out).target)
    except MediaError:
        return False
    shown = index.pts[index.is_shown]
    start_s = float(int(shown.min()) * index.time_base)
    return (
        len(shown) == span.stop_frame - span.start_frame
        and bool(index.is_keyframe[0])
        and abs(start_s) < float(span.time_base)
    )


def _part(span: ClipSpan, out: Path) -> Part:
    return Part(span.start_pts, span.stop_pts, out / "clips" / f"{clip_id_of(span)}.mp4")


def encode_unit(task: EncodeTask) -> None:
    """Re-encode a group of clips."""
    probe = task.video.probe
    encode_parts(
        task.path,
        [_part(span, task.out) for span in task.spans],
        index=index_packets(task.path),
        width=probe.width,
        height=probe.height,
        rotation=probe.rotation,
        crf=task.config.reencode_crf,
        preset=task.config.reencode_preset,
    )
