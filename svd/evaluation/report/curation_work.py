"""What curation cost, what it could not do, and how its cuts compare with known ones."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from svd.curation.clip.cut_scores import Agreement, compare_gradual, compare_hard
from svd.curation.engine import Failure
from svd.evaluation.report import words
from svd.evaluation.report.sources import Sources
from svd.types.stage import StageName, StageRun
from svd.types.truth import VideoTruth
from svd.types.video import Cut, RawVideo, RejectedFile

_STAGES: tuple[StageName, ...] = ("ingest", "clip", "annotate", "filter")
NUM_ERRORS = 40  # shown one by one; all are counted


@dataclass(frozen=True, slots=True)
class StageCost:
    """Time of one stage's last run, in words."""

    stage: str
    wall: str
    core: str
    gpu: str
    rate: str  # hours of video per core-hour


@dataclass(frozen=True, slots=True)
class Error:
    """Something a stage gave up, with its reason."""

    stage: str
    what: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class CutTruth:
    """Found cuts against known ones."""

    num_videos: int
    hard: Agreement
    gradual: Agreement


@dataclass(frozen=True, slots=True)
class CurationWork:
    """Costs and errors of the curation stages.

    Attributes:
        costs: One per stage that has run here.
        errors: The first of them.
        num_errors: How many, by (stage, reason), most first.
        truth: None without videos whose cuts are known.
    """

    costs: tuple[StageCost, ...]
    errors: tuple[Error, ...]
    num_errors: tuple[tuple[tuple[str, str], int], ...]
    truth: CutTruth | None


def read_curation_work(sources: Sources) -> CurationWork:
    """Return what the last runs of the curation stages cost, and what they gave up."""
    videos = sources.records(sources.workspace.raw / "index.jsonl", RawVideo)
    errors = tuple(_errors(sources))
    counts = Counter((error.stage, error.reason) for error in errors)
    return CurationWork(
        costs=tuple(_costs(sources, hours=sum(v.probe.duration_s for v in videos) / 3600)),
        errors=errors[:NUM_ERRORS],
        num_errors=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        truth=_read_truth(sources, videos),
    )


def _costs(sources: Sources, *, hours: float) -> Iterable[StageCost]:
    for stage in _STAGES:
        run = sources.record(sources.workspace.stage_run(stage), StageRun)
        if run is None:
            continue
        core_h = None if run.cpu_s is None else run.cpu_s / 3600
        yield StageCost(
            stage=stage,
            wall=words.duration(run.wall_s),
            core="not measured" if core_h is None else f"{core_h:.4f}",
            gpu=f"{run.gpu_s / 3600:.4f}" if run.gpu_s else "-",
            rate=f"{hours / core_h:.1f}" if core_h else "-",
        )


def _errors(sources: Sources) -> Iterable[Error]:
    workspace = sources.workspace
    for stage, folder in (("ingest", workspace.raw), ("clip", workspace.clips)):
        for file in sources.records(folder / "rejected.jsonl", RejectedFile):
            yield Error(stage, file.origin, file.reason, file.detail)
    for failure in sources.records(workspace.annotations / "failed.jsonl", Failure):
        yield Error("annotate", failure.key, failure.reason, failure.detail)


def _read_truth(sources: Sources, videos: tuple[RawVideo, ...]) -> CutTruth | None:
    folder = sources.workspace.raw / "truth"
    known = [
        truth
        for video in videos
        if (truth := sources.record(folder / f"{video.video_id}.json", VideoTruth)) is not None
    ]
    if not known or not (sources.workspace.clips / "cuts.jsonl").is_file():
        return None
    found: dict[str, list[Cut]] = {truth.video_id: [] for truth in known}
    for cut in sources.records(sources.workspace.clips / "cuts.jsonl", Cut):
        if cut.video_id in found:
            found[cut.video_id].append(cut)
    hard, gradual = Agreement(), Agreement()
    for truth in known:
        hard += compare_hard(found[truth.video_id], truth.cuts)
        gradual += compare_gradual(found[truth.video_id], truth.cuts)
    return CutTruth(len(known), hard, gradual)
