"""The annotate stage: every clip gets its scores, hashes, group and captions."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from svd.config.curation import AnnotateConfig, BankConfig, ModelsConfig, RaftConfig
from svd.config.engine import EngineConfig
from svd.curation.annotate.clip_scores import decode_embedding
from svd.curation.annotate.dedup import group_clips
from svd.curation.annotate.embedding_pairs import similar_pairs
from svd.curation.annotate.shards import Addition, ShardTask, Step, annotate_shard
from svd.curation.annotate.tables import (
    EMBEDDINGS_NAME,
    TABLE_NAME,
    write_embeddings,
    write_score_table,
)
from svd.curation.annotate.weights import ModelWeights, find_weights
from svd.curation.engine import Failure, Outcome, Unit, run_units
from svd.errors import ConfigError, MissingInputError
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.pool import Lane
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

_DECIMALS = 6  # of the means in the report
_PATIENCE_WITH_NETWORKS = 10.0  # times engine.timeout_s: a CPU is that slow, and a hang still ends


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Annotate all clips; a clip that fails is counted with its reason."""
    report = annotate_clips(
        params.annotate,
        params.clip.bank,
        engine=params.engine,
        root=workspace.root,
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


def annotate_clips(
    config: AnnotateConfig,
    bank_config: BankConfig,
    *,
    engine: EngineConfig,
    root: Path,
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
        root: The project's; weights that the recipe names lie below it.
        clips: Folder with index.jsonl, clips/ and bank/.
        out: Folder to make; replaced as a whole when all is done.
        state: Folder for finished shards; its name changes with the inputs.

    Raises:
        MissingInputError: There is no index, or weights that the recipe names are not there.
        ConfigError: The recipe wants a GPU, and there is none.
    """
    if not (clips / "index.jsonl").is_file():
        raise MissingInputError(f"{clips}/index.jsonl is not there: run `svd clip` to make it")
    plan = _Plan(
        _shards(config, bank_config, find_weights(config, root), clips=clips, state=state),
        steps=_steps(config),
        lanes={
            "models": _lane(config.models, engine, key="annotate.models"),
            "raft": _lane(config.raft, engine, key="annotate.raft"),
        },
    )
    failures = plan.run(engine, poison_list=state / "poison.jsonl")
    rows, embeddings = _collect(plan.shards.values())
    also: Iterable[tuple[str, str]] = ()
    if embeddings and config.dedup.min_similarity is not None:
        also = similar_pairs(embeddings, min_similarity=config.dedup.min_similarity)
    groups = group_clips({row.clip_id: row.hashes for row in rows}, config.dedup, also=also)
    annotations = [row.model_copy(update={"group_id": groups[row.clip_id]}) for row in rows]
    annotations.sort(key=lambda row: (row.video_id, row.bank_frames, row.clip_id))
    report = _report(annotations, failures, plan.shards)
    build = state / "out"
    shutil.rmtree(build, ignore_errors=True)
    write_records(build / "annotations.jsonl", annotations)
    write_score_table(build / TABLE_NAME, annotations)
    write_records(build / "failed.jsonl", failures)
    if embeddings:
        write_embeddings(build / EMBEDDINGS_NAME, annotations, embeddings)
    (build / "report.json").write_text(report.canonical_json(), encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    build.replace(out)
    return report


def _steps(config: AnnotateConfig) -> tuple[Step, ...]:
    steps: list[Step] = ["measure"]
    if config.models is not None:
        steps.append("models")
    if config.raft is not None:
        steps.append("raft")
    return tuple(steps)


def _lane(section: ModelsConfig | RaftConfig | None, engine: EngineConfig, *, key: str) -> Lane:
    """Return the lane of a step, after a look whether there can be a GPU if it wants one."""
    if section is None or section.device == "cpu":
        return "cpu"
    if not engine.num_gpus:
        raise ConfigError(f"{key}.device=cuda, but engine.num_gpus is 0: set one of them")
    if engine.kind == "local":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(f"{key}.device=cuda, but torch sees no GPU here: set it to cpu")
    return "gpu"


def _shards(
    config: AnnotateConfig,
    bank_config: BankConfig,
    weights: ModelWeights,
    *,
    clips: Path,
    state: Path,
) -> dict[str, ShardTask]:
    """Divide the clips into shards; a shard lies within one video, whose bank it reads."""
    by_video: dict[str, list[Clip]] = {}
    for clip in read_records(clips / "index.jsonl", Clip):
        by_video.setdefault(clip.span.video_id, []).append(clip)
    by_weights = state / f"weights-{weights.fingerprint}"  # other weights, other answers
    shards = {}
    for video_id, members in sorted(by_video.items()):
        members.sort(key=lambda clip: (clip.span.start_frame, clip.clip_id))
        for first in range(0, len(members), config.clips_per_shard):
            key = f"{video_id}/{first // config.clips_per_shard:05d}"
            shards[key] = ShardTask(
                step="measure",
                clips=tuple(members[first : first + config.clips_per_shard]),
                folder=clips,
                config=config,
                bank_config=bank_config,
                weights=weights,
                targets={
                    "measure": state / "shards" / f"{key}.jsonl",
                    "models": by_weights / "models" / f"{key}.jsonl",
                    "raft": by_weights / "raft" / f"{key}.jsonl",
                },
            )
    return shards


@dataclass(frozen=True, slots=True)
class _Plan:
    """Shards, and the steps that each of them goes through, one after the other."""

    shards: dict[str, ShardTask]  # by key
    steps: tuple[Step, ...]
    lanes: dict[Step, Lane]  # of the steps after the first

    def run(self, engine: EngineConfig, *, poison_list: Path) -> list[Failure]:
        """Do what is left to do; return what failed, by key."""
        first = [unit for key in self.shards for unit in self._from(key, 0)]
        if len(first) < len(self.shards) or any(unit.rank for unit in first):
            logger.info("resuming", extra={"shards": len(self.shards), "left": len(first)})
        outcomes = run_units(
            annotate_shard,
            first,
            engine,
            description="annotating",
            unit_name="shards",
            poison_list=poison_list,
            bounds_memory=False,
            follow=self._after,
        )
        failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
        return sorted(failures, key=lambda failure: failure.key)

    def _after(self, outcome: Outcome[None]) -> list[Unit[ShardTask]]:
        """Return the unit of the next step; nothing goes on without the first step's scores."""
        key, step = outcome.key.rsplit(":", 1)
        number = next(place for place, name in enumerate(self.steps) if name == step)
        return self._from(key, number + 1) if outcome.failure is None or number else []

    def _from(self, key: str, number: int) -> list[Unit[ShardTask]]:
        """Return the unit of a shard's first step, from this one on, that is not done."""
        task = self.shards[key]
        for rank, step in enumerate(self.steps[number:], number):
            if not task.targets[step].is_file():
                cost = sum(clip.duration_s for clip in task.clips)
                lane = self.lanes.get(step, "cpu")
                patience = 1.0 if step == "measure" else _PATIENCE_WITH_NETWORKS
                payload = replace(task, step=step)
                name = f"{key}:{step}"
                return [Unit(name, cost, payload, rank=rank, patience=patience, lane=lane)]
        return []


def _collect(
    shards: Iterable[ShardTask],
) -> tuple[list[Annotation], dict[str, np.ndarray]]:
    """Return what the passes found, put together by clip, and the embeddings by clip_id."""
    rows: dict[str, Annotation] = {}
    embeddings: dict[str, np.ndarray] = {}
    for task in shards:
        if not task.targets["measure"].is_file():
            continue
        rows |= {row.clip_id: row for row in read_records(task.targets["measure"], Annotation)}
        for path in (task.targets["models"], task.targets["raft"]):
            for addition in read_records(path, Addition) if path.is_file() else ():
                rows[addition.clip_id] = _joined(rows[addition.clip_id], addition)
                if addition.embedding is not None:
                    embeddings[addition.clip_id] = decode_embedding(addition.embedding)
    return list(rows.values()), embeddings


def _joined(row: Annotation, addition: Addition) -> Annotation:
    return row.model_copy(
        update={
            "scores": row.scores | addition.scores,
            "missing": row.missing | addition.missing,
            "captions": (*row.captions, *addition.captions),
            "scorers": row.scorers | addition.scorers,
        }
    )


def _report(
    annotations: Sequence[Annotation],
    failures: Sequence[Failure],
    shards: Mapping[str, ShardTask],
) -> AnnotateReport:
    sizes = Counter(row.group_id for row in annotations)
    names = sorted({name for row in annotations for name in row.scores})
    failed: Counter[str] = Counter()
    for failure in failures:
        failed[failure.reason] += len(shards[failure.key.rsplit(":", 1)[0]].clips)
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
