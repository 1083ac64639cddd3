"""The clip stage: raw videos -> cuts -> clips and a frame bank, in one decode pass per video."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from svd.config.curation import ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.clip.clip_video import (
    EncodeTask,
    FinishedVideo,
    FinishTask,
    ScanTask,
    clip_id_of,
    encode_unit,
    finish_unit,
    scan_unit,
)
from svd.curation.clip.scan import plan_segments
from svd.curation.engine import Failure, Unit, run_units
from svd.errors import MediaError, MissingInputError
from svd.media.decode import index_packets
from svd.runtime.fingerprint import file_sha256, stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport, Value
from svd.types.base import read_records, write_records
from svd.types.curation import ClipReport
from svd.types.video import Clip, ClipSpan, RawVideo, RejectedFile

if TYPE_CHECKING:
    from svd.config.params import Params

_SPANS_PER_ENCODE = 4  # unit of re-encoding: some seconds of work


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Cut all raw videos into clips; a video that fails is a record with its reason."""
    report = make_clips(
        params.clip,
        engine=params.engine,
        raw=workspace.raw,
        out=workspace.clips,
        state=workspace.runs / stage_fingerprint(workspace, "clip"),
    )
    kept = round(report.num_clip_frames / max(1, report.num_shot_frames), 3)
    num_gradual = report.num_cuts.get("fade", 0) + report.num_cuts.get("dissolve", 0)
    summary: dict[str, Value] = {
        "videos": report.num_videos,
        "hours of video": round(report.source_s / 3600, 3),
        "hard cuts": report.num_cuts.get("hard", 0),
        "fades and dissolves": num_gradual,
        "clips": report.num_clips,
        "re-encoded": report.num_reencoded,
        "share of shot frames kept": kept,
    }
    tracker.summarize({f"clip/{name}": value for name, value in summary.items()})
    failed = f"{report.num_rejected} videos failed; data/clips/rejected.jsonl says why"
    return StageReport(
        stage="clip",
        summary=summary,
        warnings=(failed,) if report.num_rejected else (),
        outputs=("data/clips/report.json",),
    )


def make_clips(
    config: ClipConfig, *, engine: EngineConfig, raw: Path, out: Path, state: Path
) -> ClipReport:
    """Cut the videos of an index into clips.

    Args:
        config: The stage's section.
        engine: Where the work is done.
        raw: Folder with index.jsonl and videos/.
        out: Folder to make; replaced as a whole when all is done.
        state: Folder for what lets a killed run go on; its name changes with the inputs.

    Raises:
        MissingInputError: There is no index.
    """
    if not (raw / "index.jsonl").is_file():
        raise MissingInputError(f"{raw}/index.jsonl is not there: run `svd ingest` to make it")
    videos = {video.video_id: video for video in read_records(raw / "index.jsonl", RawVideo)}
    job = _Job(config=config, engine=engine, videos=videos, raw=raw, state=state)
    shutil.rmtree(job.build, ignore_errors=True)
    (job.build / "clips").mkdir(parents=True)
    finished = job.finish(job.scan())
    job.encode(finished)
    done = {key: finished[key] for key in sorted(finished) if key not in job.rejected}
    clips = [_clip_record(videos[key], span, job.build) for key in done for span in done[key].spans]
    report = _report(job, list(done.values()), clips, source_s=_seconds(videos, done))
    _write(job, list(done.values()), clips, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    job.build.replace(out)
    shutil.rmtree(state / "scan", ignore_errors=True)
    return report


def _seconds(videos: dict[str, RawVideo], keys: dict[str, FinishedVideo]) -> float:
    return sum(videos[key].probe.duration_s for key in keys)


@dataclass(frozen=True, slots=True)
class _Job:
    """One run of the stage: its inputs, and the videos given up so far."""

    config: ClipConfig
    engine: EngineConfig
    videos: dict[str, RawVideo]
    raw: Path
    state: Path
    rejected: dict[str, RejectedFile] = field(default_factory=dict)

    @property
    def build(self) -> Path:
        """The out folder in the making."""
        return self.state / "out"

    def scan(self) -> dict[str, tuple[Path, ...]]:
        """Decode every segment not yet done; return the segments' files by video."""
        files: dict[str, tuple[Path, ...]] = {}
        units: list[Unit[ScanTask]] = []
        for key, video in sorted(self.videos.items()):
            path = self.raw / video.uri
            try:
                planned = plan_segments(index_packets(path), segment_s=self.config.segment_s)
            except MediaError as err:
                self._reject(Failure(key=key, reason=err.reason, detail=err.detail))
                continue
            folder = self.state / "scan" / key
            files[key] = tuple(folder / f"{number:05d}.npz" for number in range(len(planned)))
            probe = video.probe
            cost = probe.num_frames * probe.width * probe.height / len(planned)
            units += [
                Unit(f"{key}/{number}", cost, ScanTask(video, path, segment, self.config, target))
                for number, (segment, target) in enumerate(zip(planned, files[key], strict=True))
                if not target.is_file()
            ]
        for outcome in run_units(
            scan_unit,
            units,
            self.engine,
            description="decoding",
            unit_name="segments",
            poison_list=self.state / "poison-scan.jsonl",
        ):
            self._reject(outcome.failure)
        return {key: paths for key, paths in files.items() if key not in self.rejected}

    def finish(self, segments: dict[str, tuple[Path, ...]]) -> dict[str, FinishedVideo]:
        """Find each video's cuts, plan its clips, copy those that can be copied."""
        units = []
        for key, paths in segments.items():
            video = self.videos[key]
            task = FinishTask(video, self.raw / video.uri, paths, self.config, self.build)
            units.append(Unit(key, video.probe.num_frames, task))
        finished: dict[str, FinishedVideo] = {}
        for outcome in run_units(
            finish_unit,
            units,
            self.engine,
            description="cutting",
            unit_name="videos",
            poison_list=self.state / "poison-finish.jsonl",
        ):
            self._reject(outcome.failure)
            if outcome.result is not None:
                finished[outcome.key] = outcome.result
        return finished

    def encode(self, finished: dict[str, FinishedVideo]) -> None:
        """Re-encode the clips that could not be copied."""
        units: list[Unit[EncodeTask]] = []
        for key, done in sorted(finished.items()):
            video = self.videos[key]
            spans = [span for span in done.spans if span.method == "reencode"]
            for first in range(0, len(spans), _SPANS_PER_ENCODE):
                group = tuple(spans[first : first + _SPANS_PER_ENCODE])
                frames = sum(span.stop_frame - span.start_frame for span in group)
                cost = frames * video.probe.width * video.probe.height
                task = EncodeTask(video, self.raw / video.uri, group, self.config, self.build)
                units.append(Unit(f"{key}/{first}", cost, task))
        for outcome in run_units(
            encode_unit,
            units,
            self.engine,
            description="re-encoding",
            unit_name="groups of clips",
            poison_list=self.state / "poison-encode.jsonl",
        ):
            self._reject(outcome.failure)

    def _reject(self, failure: Failure | None) -> None:
        """Remember the video of a failed unit; of several failures the least key speaks."""
        if failure is None:
            return
        video = self.videos[failure.key.split("/")[0]]
        before = self.rejected.get(video.video_id)
        detail = f"{failure.detail} (unit {failure.key[len(video.video_id) + 1 :] or 'all'})"
        if before is None or detail < before.detail:
            self.rejected[video.video_id] = RejectedFile(
                origin=video.origin,
                sha256=video.video_id,
                size_bytes=video.size_bytes,
                reason=failure.reason,
                detail=detail,
            )


def _clip_record(video: RawVideo, span: ClipSpan, build: Path) -> Clip:
    clip_id = clip_id_of(span)
    num_frames = span.stop_frame - span.start_frame
    duration = (span.stop_pts - span.start_pts) * span.time_base
    step = 1 if span.method == "copy" else 2  # the encoder's sides are even
    return Clip(
        clip_id=clip_id,
        span=span,
        uri=f"clips/{clip_id}.mp4",
        sha256=file_sha256(build / "clips" / f"{clip_id}.mp4"),
        width=video.probe.width // step * step,
        height=video.probe.height // step * step,
        fps=num_frames / duration,
        num_frames=num_frames,
        duration_s=float(duration),
    )


def _write(
    job: _Job, done: Sequence[FinishedVideo], clips: Sequence[Clip], report: ClipReport
) -> None:
    build = job.build
    _sweep(build, videos={video.video_id for video in done}, clips={c.clip_id for c in clips})
    write_records(build / "cuts.jsonl", (cut for video in done for cut in video.cuts))
    write_records(build / "index.jsonl", clips)
    write_records(build / "dropped.jsonl", (span for video in done for span in video.dropped))
    write_records(build / "rejected.jsonl", [job.rejected[key] for key in sorted(job.rejected)])
    (build / "report.json").write_text(report.canonical_json(), encoding="utf-8")


def _sweep(build: Path, *, videos: set[str], clips: set[str]) -> None:
    """Remove what videos that failed late have left."""
    for path in (build / "clips").iterdir():
        if path.stem not in clips:
            path.unlink()
    for folder in (build / "bank").glob("*"):
        if folder.name not in videos:
            shutil.rmtree(folder)


def _report(
    job: _Job, done: Sequence[FinishedVideo], clips: Sequence[Clip], *, source_s: float
) -> ClipReport:
    methods = Counter(clip.span.method for clip in clips)
    return ClipReport(
        num_videos=len(job.videos),
        num_rejected=len(job.rejected),
        num_clips=len(clips),
        num_copied=methods["copy"],
        num_reencoded=methods["reencode"],
        source_s=source_s,
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
