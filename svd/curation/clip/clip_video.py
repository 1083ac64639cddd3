"""What one worker does for a video: index it, decode a run, cut and copy clips, re-encode some."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from svd.config.curation import ClipConfig
from svd.curation.clip.bank import write_bank
from svd.curation.clip.clips import copy_points, plan_clips
from svd.curation.clip.cuts import CutReport, detect_cuts, shots_between
from svd.curation.clip.runs import Segment, plan_runs
from svd.curation.clip.scan import scan_segments
from svd.curation.clip.second_opinion import look_at, settle, windows_around
from svd.curation.clip.track import BankFrame, FrameTrack, join_tracks, load_segment, save_segment
from svd.errors import MediaError
from svd.media.decode import PacketIndex, index_packets
from svd.media.parts import Part, copy_parts, encode_parts
from svd.runtime.fingerprint import file_sha256
from svd.types.base import Record
from svd.types.video import Clip, ClipSpan, Cut, DroppedSpan, RawVideo

logger = logging.getLogger(__name__)

_SPANS_PER_ENCODE = 4  # of a group, at least: some seconds of work


def clip_id_of(span: ClipSpan) -> str:
    """Return the name of a clip: it depends on the video's bytes and the span, on nothing else."""
    key = f"{span.video_id}:{span.start_pts}:{span.stop_pts}:{span.time_base}"
    return hashlib.sha256(key.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class IndexTask:
    """Demux one video to see where it can be split."""

    path: Path
    config: ClipConfig


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Decode one run of one video."""

    video: RawVideo
    path: Path
    segments: tuple[Segment, ...]
    config: ClipConfig
    targets: tuple[Path, ...]  # one per segment


@dataclass(frozen=True, slots=True)
class FinishTask:
    """Join a video's segments, find its cuts, plan and copy its clips."""

    video: RawVideo
    path: Path
    segments: tuple[Path, ...]
    config: ClipConfig
    out: Path
    network: Path | None = None  # weights of the second opinion, if the recipe wants one


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """Re-encode a few clips of one video."""

    video: RawVideo
    path: Path
    spans: tuple[ClipSpan, ...]
    config: ClipConfig
    out: Path


@dataclass(frozen=True, slots=True)
class IndexedVideo:
    """Where a video can be split."""

    runs: tuple[tuple[Segment, ...], ...]


@dataclass(frozen=True, slots=True)
class ScannedRun:
    """A run whose segments are stored."""


@dataclass(frozen=True, slots=True)
class EncodedClips:
    """Clips that were re-encoded."""

    clips: tuple[Clip, ...]


class FinishedVideo(Record):
    """What a video came to; as done/<video_id>.json, written last, the mark that it is done."""

    video_id: str
    cuts: tuple[Cut, ...]
    clips: tuple[Clip, ...]
    to_encode: tuple[tuple[ClipSpan, ...], ...]  # in groups; () once the video is done
    dropped: tuple[DroppedSpan, ...]
    cut_report: CutReport
    num_frames: int
    num_shots: int
    num_shot_frames: int
    num_bad_packets: int
    num_damaged_frames: int


ClipTask = IndexTask | ScanTask | FinishTask | EncodeTask
ClipResult = IndexedVideo | ScannedRun | FinishedVideo | EncodedClips


def do_task(task: ClipTask) -> ClipResult:
    """Do one unit of the clip stage."""
    match task:
        case IndexTask(path, config):
            return IndexedVideo(plan_runs(index_packets(path), segment_s=config.segment_s))
        case ScanTask():
            return _scan(task)
        case FinishTask():
            return _finish(task)
        case EncodeTask():
            return _encode(task)


def _scan(task: ScanTask) -> ScannedRun:
    """Decode one run and store what it gave."""
    scans = scan_segments(
        task.path,
        task.segments,
        task.video.probe,
        cuts=task.config.cuts,
        bank=task.config.bank,
    )
    for target, scan in zip(task.targets, scans, strict=True):
        save_segment(target, scan)
    return ScannedRun()


def _finish(task: FinishTask) -> FinishedVideo:
    """Turn a video's measurements into cuts, a plan, a bank and copied clips."""
    probe = task.video.probe
    video_id = task.video.video_id
    tracks: list[FrameTrack] = []
    num_bad = num_damaged = 0
    message = ""
    for path in task.segments:
        scan = load_segment(path)
        tracks.append(scan.track)
        num_bad += scan.num_bad_packets
        num_damaged += scan.num_damaged_frames
        message = message or scan.message
    track = join_tracks(tracks)
    if not len(track.pts):
        raise MediaError(str(task.path), "no-frames", message or "no frame could be decoded")
    cuts, cut_report = detect_cuts(track, task.config.cuts, video_id=video_id, fps=float(probe.fps))
    index = index_packets(task.path)
    if task.network is not None:
        cuts = _second_opinion(task, task.network, cuts, cut_report, track, index)
    shots = shots_between(cuts, num_frames=len(track.pts), guard_frames=task.config.guard_frames)
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
        clips=tuple(
            _clip_record(task.video, span, task.out) for span in spans if span.method == "copy"
        ),
        to_encode=_encode_groups([span for span in spans if span.method == "reencode"], index),
        dropped=plan.dropped,
        cut_report=cut_report,
        num_frames=len(track.pts),
        num_shots=len(shots),
        num_shot_frames=sum(shot.stop - shot.start for shot in shots),
        num_bad_packets=num_bad,
        num_damaged_frames=num_damaged,
    )


def _second_opinion(
    task: FinishTask,
    weights: Path,
    cuts: tuple[Cut, ...],
    report: CutReport,
    track: FrameTrack,
    index: PacketIndex,
) -> tuple[Cut, ...]:
    """Ask the network about the stretches on which the detectors disagree."""
    from svd.curation.clip.transnet import HEIGHT, TRANSNET_VERSION, WIDTH, load_transnet

    windows = windows_around(report.disputed, num_frames=len(track.pts))
    if task.config.cuts.network is None or not windows:
        return cuts
    opinions = look_at(
        task.path,
        windows,
        load_transnet(weights),
        frame_pts=track.pts,
        index=index,
        rotation=task.video.probe.rotation,
        size=(WIDTH, HEIGHT),
    )
    return settle(
        cuts,
        report.disputed,
        opinions,
        task.config.cuts.network,
        video_id=task.video.video_id,
        detector=TRANSNET_VERSION,
    )


def _encode_groups(
    spans: Sequence[ClipSpan], index: PacketIndex
) -> tuple[tuple[ClipSpan, ...], ...]:
    """Group spans so that no group has to decode again what the one before it decoded."""
    keys = np.sort(index.pts[index.is_keyframe]) if index.is_seekable else index.pts[:0]
    groups: list[list[ClipSpan]] = []
    for span in spans:
        is_fresh_start = bool(groups) and bool(
            np.any((keys >= groups[-1][-1].stop_pts) & (keys <= span.start_pts))
        )
        if not groups or (is_fresh_start and len(groups[-1]) >= _SPANS_PER_ENCODE):
            groups.append([])
        groups[-1].append(span)
    return tuple(tuple(group) for group in groups)


def _clip_record(video: RawVideo, span: ClipSpan, out: Path) -> Clip:
    clip_id = clip_id_of(span)
    num_frames = span.stop_frame - span.start_frame
    duration = (span.stop_pts - span.start_pts) * span.time_base
    step = 1 if span.method == "copy" else 2  # the encoder's sides are even
    return Clip(
        clip_id=clip_id,
        span=span,
        uri=f"clips/{clip_id}.mp4",
        sha256=file_sha256(_part(span, out).target),
        width=video.probe.width // step * step,
        height=video.probe.height // step * step,
        fps=num_frames / duration,
        num_frames=num_frames,
        duration_s=float(duration),
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
        copy_parts(
            task.path,
            [_part(span, task.out) for span in copies],
            keep_sound=task.config.keep_audio,
        )
        failed = {clip_id_of(span) for span in copies if not _is_exact(span, task.out)}
    except MediaError as err:
        logger.warning("stream copy failed, re-encoding", extra={"error": str(err)})
        failed = {clip_id_of(span) for span in copies}
    for clip_id in failed:  # a file that is there counts as a clip that is done
        (task.out / "clips" / f"{clip_id}.mp4").unlink(missing_ok=True)
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


def _encode(task: EncodeTask) -> EncodedClips:
    """Re-encode a group of clips; those that a killed run has left are done."""
    probe = task.video.probe
    parts = [_part(span, task.out) for span in task.spans]
    encode_parts(
        task.path,
        [part for part in parts if not part.target.is_file()],
        index=index_packets(task.path),
        width=probe.width,
        height=probe.height,
        rotation=probe.rotation,
        crf=task.config.reencode_crf,
        preset=task.config.reencode_preset,
        keep_sound=task.config.keep_audio,
    )
    return EncodedClips(tuple(_clip_record(task.video, span, task.out) for span in task.spans))
