"""The clip stage: raw videos -> cuts -> clips and a frame bank, in one decode pass per video."""

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from svd.config.curation import ClipConfig
from svd.curation.bank import write_bank
from svd.curation.clips import copy_points, plan_clips
from svd.curation.cuts import CutReport, detect_cuts, shots_between
from svd.curation.engine import Failure, Outcome, Unit, run_units
from svd.curation.scan import Segment, plan_segments, scan_segment
from svd.curation.track import BankFrame, FrameTrack, join_tracks, load_segment, save_segment
from svd.errors import MediaError, MissingInputError
from svd.media.decode import index_packets
from svd.media.parts import Part, copy_parts, encode_parts
from svd.runtime.fingerprint import file_sha256, stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport
from svd.types.base import read_records, write_records
from svd.types.curation import ClipReport
from svd.types.video import Clip, ClipSpan, Cut, DroppedSpan, RawVideo, RejectedFile

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Cut all raw videos into clips; a video that fails is a record with its reason."""
    report = make_clips(
        params.clip,
        raw=workspace.raw,
        out=workspace.clips,
        state=workspace.runs / stage_fingerprint(workspace, "clip"),
    )
    tracker.summarize({f"clip/{name}": value for name, value in _numbers(report).items()})
    kept = report.num_clip_frames / max(1, report.num_shot_frames)
    return StageReport(
        stage="clip",
        summary={
            "videos": report.num_videos,
            "hours of video": round(report.source_s / 3600, 3),
            "hard cuts": report.num_cuts.get("hard", 0),
            "fades and dissolves": report.num_cuts.get("fade", 0)
            + report.num_cuts.get("dissolve", 0),
            "clips": report.num_clips,
            "re-encoded": report.num_reencoded,
            "share of frames in shots kept": round(kept, 3),
        },
        warnings=_warnings(report),
        outputs=("data/clips/report.json",),
    )


def _numbers(report: ClipReport) -> dict[str, int | float]:
    return {
        name: value for name, value in report.model_dump().items() if isinstance(value, int | float)
    }


def _warnings(report: ClipReport) -> tuple[str, ...]:
    if not report.num_rejected:
        return ()
    return (f"{report.num_rejected} videos failed; data/clips/rejected.jsonl says why",)


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

    cuts: tuple[Cut, ...]
    spans: tuple[ClipSpan, ...]
    dropped: tuple[DroppedSpan, ...]
    cut_report: CutReport
    num_frames: int
    num_shots: int
    num_shot_frames: int
    num_bad_packets: int
    num_damaged_frames: int


def clip_id_of(span: ClipSpan) -> str:
    """Return the name of a clip: it depends on the video's bytes and the span, on nothing else."""
    key = f"{span.video_id}:{span.start_pts}:{span.stop_pts}:{span.time_base}"
    return hashlib.sha256(key.encode()).hexdigest()[:20]


def make_clips(config: ClipConfig, *, raw: Path, out: Path, state: Path) -> ClipReport:
    """Cut the videos of an index into clips.

    Args:
        config: The stage's section.
        raw: Folder with index.jsonl and videos/.
        out: Folder to make; replaced as a whole when all is done.
        state: Folder for what lets a killed run go on; its name changes with the inputs.

    Raises:
        MissingInputError: There is no index.
    """
    if not (raw / "index.jsonl").is_file():
        raise MissingInputError(f"{raw}/index.jsonl is not there: run `svd ingest` to make it")
    videos = {video.video_id: video for video in read_records(raw / "index.jsonl", RawVideo)}
    rejected: dict[str, RejectedFile] = {}
    segments = _scan_all(videos, config, raw=raw, state=state, rejected=rejected)
    build = state / "out"
    shutil.rmtree(build, ignore_errors=True)
    (build / "clips").mkdir(parents=True)
    finished = _finish_all(
        videos, config, segments, raw=raw, build=build, state=state, rejected=rejected
    )
    _encode_all(videos, config, finished, raw=raw, build=build, state=state, rejected=rejected)
    finished = {key: done for key, done in sorted(finished.items()) if key not in rejected}
    clips = [
        _clip_record(videos[key], span, build) for key in finished for span in finished[key].spans
    ]
    report = _report(videos, rejected, finished, clips)
    write_records(build / "cuts.jsonl", (cut for done in finished.values() for cut in done.cuts))
    write_records(build / "index.jsonl", clips)
    write_records(
        build / "dropped.jsonl", (span for done in finished.values() for span in done.dropped)
    )
    write_records(build / "rejected.jsonl", [rejected[key] for key in sorted(rejected)])
    (build / "report.json").write_text(report.canonical_json(), encoding="utf-8")
    _replace_folder(build, out)
    shutil.rmtree(state / "scan", ignore_errors=True)
    return report


def _replace_folder(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    source.replace(target)


def _scan_all(
    videos: dict[str, RawVideo],
    config: ClipConfig,
    *,
    raw: Path,
    state: Path,
    rejected: dict[str, RejectedFile],
) -> dict[str, tuple[Path, ...]]:
    """Decode every segment that is not yet done; return the segments' files by video."""
    files: dict[str, tuple[Path, ...]] = {}
    units: list[Unit[ScanTask]] = []
    for key, video in sorted(videos.items()):
        path = raw / video.uri
        try:
            planned = plan_segments(index_packets(path), segment_s=config.segment_s)
        except MediaError as err:
            rejected[key] = _rejection(video, err.reason, err.detail)
            continue
        files[key] = tuple(
            state / "scan" / key / f"{number:05d}.npz" for number in range(len(planned))
        )
        cost = video.probe.num_frames * video.probe.width * video.probe.height / len(planned)
        units += [
            Unit(f"{key}/{number}", cost, ScanTask(video, path, segment, config, target))
            for number, (segment, target) in enumerate(zip(planned, files[key], strict=True))
            if not target.is_file()
        ]
    for outcome in run_units(
        scan_unit,
        units,
        config.workers,
        description="decoding",
        unit_name="segments",
        poison_list=state / "poison-scan.jsonl",
    ):
        _reject_failed(outcome, videos, rejected)
    return {key: paths for key, paths in files.items() if key not in rejected}


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


def _finish_all(
    videos: dict[str, RawVideo],
    config: ClipConfig,
    segments: dict[str, tuple[Path, ...]],
    *,
    raw: Path,
    build: Path,
    state: Path,
    rejected: dict[str, RejectedFile],
) -> dict[str, FinishedVideo]:
    units = [
        Unit(
            key,
            videos[key].probe.num_frames,
            FinishTask(videos[key], raw / videos[key].uri, paths, config, build),
        )
        for key, paths in segments.items()
    ]
    finished: dict[str, FinishedVideo] = {}
    for outcome in run_units(
        finish_unit,
        units,
        config.workers,
        description="cutting",
        unit_name="videos",
        poison_list=state / "poison-finish.jsonl",
    ):
        _reject_failed(outcome, videos, rejected)
        if outcome.result is not None:
            finished[outcome.key] = outcome.result
    return finished


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


_SPANS_PER_ENCODE = 4  # unit of re-encoding: some seconds of work


def _encode_all(
    videos: dict[str, RawVideo],
    config: ClipConfig,
    finished: dict[str, FinishedVideo],
    *,
    raw: Path,
    build: Path,
    state: Path,
    rejected: dict[str, RejectedFile],
) -> None:
    units: list[Unit[EncodeTask]] = []
    for key, done in sorted(finished.items()):
        spans = [span for span in done.spans if span.method == "reencode"]
        for first in range(0, len(spans), _SPANS_PER_ENCODE):
            group = tuple(spans[first : first + _SPANS_PER_ENCODE])
            frames = sum(span.stop_frame - span.start_frame for span in group)
            task = EncodeTask(videos[key], raw / videos[key].uri, group, config, build)
            units.append(Unit(f"{key}/{first}", frames, task))
    for outcome in run_units(
        encode_unit,
        units,
        config.workers,
        description="re-encoding",
        unit_name="groups of clips",
        poison_list=state / "poison-encode.jsonl",
    ):
        _reject_failed(outcome, videos, rejected)


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


def _reject_failed(
    outcome: Outcome[object], videos: dict[str, RawVideo], rejected: dict[str, RejectedFile]
) -> None:
    """Remember a failed unit's video; the first failure by key speaks for the video."""
    failure: Failure | None = outcome.failure
    if failure is not None:
        key = failure.key.split("/")[0]
        rejected[key] = _rejection(videos[key], failure.reason, failure.detail)


def _rejection(video: RawVideo, reason: str, detail: str) -> RejectedFile:
    return RejectedFile(
        origin=video.origin,
        sha256=video.video_id,
        size_bytes=video.size_bytes,
        reason=reason,
        detail=detail,
    )


def _clip_record(video: RawVideo, span: ClipSpan, build: Path) -> Clip:
    clip_id = clip_id_of(span)
    num_frames = span.stop_frame - span.start_frame
    duration = (span.stop_pts - span.start_pts) * span.time_base
    is_odd_safe = span.method == "copy"
    return Clip(
        clip_id=clip_id,
        span=span,
        uri=f"clips/{clip_id}.mp4",
        sha256=file_sha256(build / "clips" / f"{clip_id}.mp4"),
        width=video.probe.width if is_odd_safe else video.probe.width // 2 * 2,
        height=video.probe.height if is_odd_safe else video.probe.height // 2 * 2,
        fps=num_frames / duration,
        num_frames=num_frames,
        duration_s=float(duration),
    )


def _report(
    videos: dict[str, RawVideo],
    rejected: dict[str, RejectedFile],
    finished: dict[str, FinishedVideo],
    clips: list[Clip],
) -> ClipReport:
    done = list(finished.values())
    return ClipReport(
        num_videos=len(videos),
        num_rejected=len(rejected),
        num_clips=len(clips),
        num_copied=sum(clip.span.method == "copy" for clip in clips),
        num_reencoded=sum(clip.span.method == "reencode" for clip in clips),
        source_s=sum(videos[key].probe.duration_s for key in finished),
        clip_s=sum(clip.duration_s for clip in clips),
        num_frames=sum(video.num_frames for video in done),
        num_shot_frames=sum(video.num_shot_frames for video in done),
        num_clip_frames=sum(clip.num_frames for clip in clips),
        num_shots=sum(video.num_shots for video in done),
        num_shots_native=sum(video.cut_report.num_native_hits + 1 for video in done),
        num_cuts=dict(Counter(cut.kind for video in done for cut in video.cuts)),
        num_hits_of_motion=sum(video.cut_report.num_hits_of_motion for video in done),
        num_dropped=dict(Counter(span.reason for video in done for span in video.dropped)),
        num_bad_packets=sum(video.num_bad_packets for video in done),
        num_damaged_frames=sum(video.num_damaged_frames for video in done),
    )
