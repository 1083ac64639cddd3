"""The page says what curation cost, what it gave up, and how its cuts compare with known ones."""

from fractions import Fraction
from pathlib import Path

from svd.curation.engine import Failure
from svd.evaluation.report.curation_work import read_curation_work
from svd.evaluation.report.sources import Sources
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport
from svd.types.base import write_records
from svd.types.stage import StageRun
from svd.types.truth import TrueCut, VideoTruth
from svd.types.video import Cut, RawVideo, RejectedFile, VideoProbe

VIDEO = RawVideo(
    video_id="a" * 64,
    uri="videos/a.mp4",
    origin="a.mp4",
    licence="CC0-1.0",
    size_bytes=1,
    probe=VideoProbe(
        codec="h264",
        width=64,
        height=64,
        fps=Fraction(24),
        time_base=Fraction(1, 24),
        num_frames=86_400,
        num_keyframes=1,
        start_pts=0,
        duration_s=3600.0,
        is_vfr=False,
        has_audio=False,
        pixel_format="yuv420p",
    ),
)


def sources(root: Path) -> Sources:
    return Sources(Workspace(root), budget_bytes=1000)


def refused(reason: str) -> RejectedFile:
    return RejectedFile(origin="x", sha256=None, size_bytes=None, reason=reason, detail="why")


def test_an_empty_checkout_has_cost_nothing_and_given_up_nothing(tmp_path: Path) -> None:
    work = read_curation_work(sources(tmp_path))
    assert (work.costs, work.errors, work.num_errors, work.truth) == ((), (), (), None)


def test_core_hours_and_hours_of_video_per_core_hour_are_those_of_the_last_run(
    tmp_path: Path,
) -> None:
    workspace = Workspace(tmp_path)
    write_records(workspace.raw / "index.jsonl", [VIDEO])
    run = StageRun(
        fingerprint="f",
        pipeline_run=None,
        started_at="2026-01-01T00:00:00+00:00",
        wall_s=90.0,
        cpu_s=180.0,
        gpu_s=36.0,
        report=StageReport(stage="clip", summary={}),
    )
    path = workspace.stage_run("clip")
    path.parent.mkdir(parents=True)
    path.write_text(run.canonical_json())
    (cost,) = read_curation_work(sources(tmp_path)).costs
    assert (cost.stage, cost.core, cost.gpu, cost.rate) == ("clip", "0.0500", "0.0100", "20.0")


def test_what_was_given_up_is_counted_by_stage_and_reason(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_records(workspace.raw / "rejected.jsonl", [refused("empty-file"), refused("empty-file")])
    write_records(workspace.clips / "rejected.jsonl", [refused("timeout")])
    failure = Failure(key="v/00001", reason="crashed", detail="signal 9")
    write_records(workspace.annotations / "failed.jsonl", [failure])
    work = read_curation_work(sources(tmp_path))
    assert work.num_errors == (
        (("ingest", "empty-file"), 2),
        (("annotate", "crashed"), 1),
        (("clip", "timeout"), 1),
    )
    assert [error.stage for error in work.errors] == ["ingest", "ingest", "clip", "annotate"]


def test_cuts_are_compared_where_they_are_known(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_records(workspace.raw / "index.jsonl", [VIDEO])
    truth = VideoTruth(
        video_id=VIDEO.video_id,
        name="synthetic/x",
        width=64,
        height=64,
        fps=Fraction(24),
        num_frames=100,
        cuts=(
            TrueCut(kind="hard", start_frame=20, stop_frame=20),
            TrueCut(kind="hard", start_frame=50, stop_frame=50),
        ),
        shots=(),
        duplicate_of=None,
        duplicate_kind=None,
    )
    (workspace.raw / "truth").mkdir()
    path = workspace.raw / "truth" / f"{VIDEO.video_id}.json"
    path.write_text(truth.canonical_json())
    cut = Cut(
        video_id=VIDEO.video_id, start_frame=21, stop_frame=21, kind="hard", score=1, detector="d"
    )
    other = cut.model_copy(update={"video_id": "b" * 64})
    write_records(workspace.clips / "cuts.jsonl", [cut, other])
    known = read_curation_work(sources(tmp_path)).truth
    assert known is not None
    assert (known.num_videos, known.hard.recall, known.hard.precision) == (1, 0.5, 1.0)
