"""The annotate stage: every clip gets its scores, hashes, group and caption from the frame bank."""

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from svd.config.curation import AnnotateConfig, BankConfig
from svd.config.engine import EngineConfig
from svd.curation.annotate.camera import CameraAnnotator
from svd.curation.annotate.captions import measured_caption
from svd.curation.annotate.dedup import dedup_scorer, group_clips, hash_frames
from svd.curation.annotate.look import LookAnnotator
from svd.curation.annotate.motion import MotionAnnotator
from svd.curation.annotate.overlay_text import TextAnnotator
from svd.curation.annotate.scoring import Annotator, ClipView
from svd.curation.clip.bank import FrameBank
from svd.curation.engine import Failure, Unit, run_units
from svd.curation.filter.score_table import TABLE_NAME, write_score_table
from svd.errors import MissingInputError
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.annotation import Annotation
from svd.types.artifact import StageReport
from svd.types.base import read_records, write_records
from svd.types.curation import AnnotateReport
from svd.types.video import Clip

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)

_DECIMALS = 6  # of stored scores: far below their noise, and it keeps files small


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Annotate all clips; a clip that fails is counted with its reason."""
    report = annotate_clips(
        params.annotate,
        params.clip.bank,
        engine=params.engine,
        clips=workspace.clips,
        out=workspace.annotations,
        state=workspace.runs / stage_fingerprint(workspace, "annotate"),
    )
    tracker.summarize({f"annotate/{name}": value for name, value in report.mean_scores.items()})
    failed = sum(report.num_failed.values())
    return StageReport(
        stage="annotate",
        summary={
            "clips": report.num_clips,
            "near-duplicate groups": report.num_groups,
            "clips with a near-duplicate": report.num_in_larger_groups,
            "failed": failed,
        },
        warnings=(f"{failed} clips failed; data/annotations/failed.jsonl says why",)
        if failed
        else (),
        outputs=("data/annotations/report.json",),
    )


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Annotate a few clips of one video."""

    clips: tuple[Clip, ...]
    bank: Path
    config: AnnotateConfig
    bank_config: BankConfig
    target: Path


def annotate_clips(
    config: AnnotateConfig,
    bank_config: BankConfig,
    *,
    engine: EngineConfig,
    clips: Path,
    out: Path,
    state: Path,
) -> AnnotateReport:
    """Annotate the clips of an index.

    A shard's file appears when the shard is done, so a killed run loses the shards in flight.

    Args:
        config: The stage's section.
        bank_config: How the bank was made; goes into the scorers' settings.
        engine: Where the work is done.
        clips: Folder with index.jsonl and bank/.
        out: Folder to make; replaced as a whole when all is done.
        state: Folder for finished shards; its name changes with the inputs.

    Raises:
        MissingInputError: There is no index.
    """
    if not (clips / "index.jsonl").is_file():
        raise MissingInputError(f"{clips}/index.jsonl is not there: run `svd clip` to make it")
    units = _shards(config, bank_config, clips=clips, state=state)
    failures = _run_shards(units, engine, state)
    rows = [
        row
        for unit in units
        if unit.payload.target.is_file()
        for row in read_records(unit.payload.target, Annotation)
    ]
    groups = group_clips({row.clip_id: row.hashes for row in rows}, config.dedup)
    annotations = [row.model_copy(update={"group_id": groups[row.clip_id]}) for row in rows]
    annotations.sort(key=lambda row: (row.video_id, row.bank_frames, row.clip_id))
    report = _report(annotations, failures, units)
    build = state / "out"
    shutil.rmtree(build, ignore_errors=True)
    write_records(build / "annotations.jsonl", annotations)
    write_score_table(build / TABLE_NAME, annotations)
    write_records(build / "failed.jsonl", failures)
    (build / "report.json").write_text(report.canonical_json(), encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    build.replace(out)
    return report


def _shards(
    config: AnnotateConfig, bank_config: BankConfig, *, clips: Path, state: Path
) -> list[Unit[ShardTask]]:
    """Divide the clips into shards; a shard lies within one video, whose bank it reads."""
    by_video: dict[str, list[Clip]] = {}
    for clip in read_records(clips / "index.jsonl", Clip):
        by_video.setdefault(clip.span.video_id, []).append(clip)
    units = []
    for video_id, members in sorted(by_video.items()):
        members.sort(key=lambda clip: (clip.span.start_frame, clip.clip_id))
        for first in range(0, len(members), config.clips_per_shard):
            group = tuple(members[first : first + config.clips_per_shard])
            key = f"{video_id}/{first // config.clips_per_shard:05d}"
            task = ShardTask(
                clips=group,
                bank=clips / "bank" / video_id,
                config=config,
                bank_config=bank_config,
                target=state / "shards" / f"{key}.jsonl",
            )
            units.append(Unit(key, sum(clip.duration_s for clip in group), task))
    return units


def _run_shards(
    units: Sequence[Unit[ShardTask]], engine: EngineConfig, state: Path
) -> list[Failure]:
    left = [unit for unit in units if not unit.payload.target.is_file()]
    if len(left) < len(units):
        logger.info("resuming", extra={"shards": len(units), "left": len(left)})
    outcomes = run_units(
        annotate_shard,
        left,
        engine,
        description="annotating",
        unit_name="shards",
        poison_list=state / "poison.jsonl",
        bounds_memory=False,
    )
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    return sorted(failures, key=lambda failure: failure.key)


def annotate_shard(task: ShardTask) -> None:
    """Annotate one shard and write it; the file is its done-mark."""
    bank = FrameBank(task.bank)
    annotators = _annotators(task.config, task.bank_config)
    rows = [_annotate(ClipView(clip, bank), annotators, task.config) for clip in task.clips]
    write_records(task.target, rows)


@cache
def _annotators(config: AnnotateConfig, bank_config: BankConfig) -> tuple[Annotator, ...]:
    """Build the annotators once per process; their models load at the first clip."""
    annotators: list[Annotator] = [
        MotionAnnotator(bank_config),
        CameraAnnotator(bank_config),
        LookAnnotator(),
    ]
    if config.text is not None:
        annotators.append(TextAnnotator(config.text))
    return tuple(annotators)


def _annotate(
    view: ClipView, annotators: Sequence[Annotator], config: AnnotateConfig
) -> Annotation:
    scores: dict[str, float] = {}
    missing: dict[str, str] = {}
    for annotator in annotators:
        name = annotator.scorer.name
        measured = annotator.measure(view)
        scores |= {f"{name}.{key}": value for key, value in measured.scores.items()}
        missing |= {f"{name}.{key}": reason for key, reason in measured.missing.items()}
    scorers = {annotator.scorer.name: annotator.scorer for annotator in annotators}
    return Annotation(
        clip_id=view.clip.clip_id,
        video_id=view.clip.span.video_id,
        num_frames=view.clip.num_frames,
        duration_s=view.clip.duration_s,
        scores={name: round(value, _DECIMALS) for name, value in scores.items()},
        missing=missing,
        captions=(measured_caption(view, scores),),
        hashes=hash_frames(view, config.dedup),
        group_id=view.clip.clip_id,
        scorers=scorers | {"dedup": dedup_scorer(config.dedup)},
        bank_frames=tuple(view.frames),
    )


def _report(
    annotations: Sequence[Annotation],
    failures: Sequence[Failure],
    units: Sequence[Unit[ShardTask]],
) -> AnnotateReport:
    sizes = Counter(row.group_id for row in annotations)
    names = sorted({name for row in annotations for name in row.scores})
    clips_of = {unit.key: len(unit.payload.clips) for unit in units}
    failed: Counter[str] = Counter()
    for failure in failures:
        failed[failure.reason] += clips_of[failure.key]
    means = {}
    for name in names:
        values = [row.scores[name] for row in annotations if name in row.scores]
        means[name] = round(sum(values) / len(values), _DECIMALS)
    return AnnotateReport(
        num_clips=len(annotations),
        num_groups=len(sizes),
        num_in_larger_groups=sum(size for size in sizes.values() if size > 1),
        num_failed=dict(failed),
        num_missing=dict(Counter(name for row in annotations for name in row.missing)),
        mean_scores=means,
    )
