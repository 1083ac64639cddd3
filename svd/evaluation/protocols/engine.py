"""The machinery under every protocol: plan first, then clip by clip, then one reduction.

A plan is written before anything is measured, and every clip is one file made at once: a killed
run loses at most the clip it was at, and goes on with the same clips. Processes share a plan by
position, without padding, and talk through these files alone.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from svd.atomic import write_text
from svd.errors import ConfigError, MediaError, MissingInputError
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.protocols.base import (
    EvaluationProtocol,
    MeasuredClip,
    Planned,
    PlanOptions,
    Reduced,
    Shard,
)
from svd.evaluation.protocols.run import ProtocolRun, video_name
from svd.evaluation.tensor_store import Stored, TensorStore
from svd.runtime.progress import track
from svd.types.base import write_records
from svd.types.protocol import ExtremeClips, Plan, PlannedClip, ProtocolReport, RunIdentity

logger = logging.getLogger(__name__)

PLAN, IDENTITY, REPORT, RECORDS = "plan.json", "identity.json", "report.json", "records.jsonl"
MAX_NAMED = 4096  # clips whose values records still name one by one
NUM_EXTREMES = 4  # clips at either end of a metric


def prepare(
    protocol: EvaluationProtocol, run: ProtocolRun, options: PlanOptions
) -> tuple[Plan, RunIdentity, ProtocolRun]:
    """Return the plan and identity of a run, writing them first if it is new.

    Raises:
        MissingInputError: The data are not there, or not in the expected layout.
        ConfigError: The source cannot be measured so, a network was brought in that the protocol
            does not use, or the out folder holds another run.
    """
    card = protocol.card
    if run.source.kind not in card.sources:
        raise ConfigError(
            f"{card.name} measures {' or '.join(card.sources)}, not a source of kind "
            f"{run.source.kind}"
        )
    planned = protocol.plan(run, options)
    plan = Plan(
        protocol=card.name,
        seed=options.seed,
        split=planned.split,
        dataset_sha256=planned.dataset_sha256,
        num_available=planned.num_available,
        small=options.small is not None,
        clips=planned.clips,
    )
    identity = _identify(protocol, run, plan, planned, options)
    run = replace(run, key=identity.content_hash(), dataset_sha256=plan.dataset_sha256)
    _write_once(run.out / IDENTITY, identity, run.out)
    _write_once(run.out / PLAN, plan, run.out)
    return plan, identity, run


def measure_shard(protocol: EvaluationProtocol, run: ProtocolRun, plan: Plan, shard: Shard) -> None:
    """Measure every clip of a shard that is not measured yet, and sum the shard up."""
    store = TensorStore(run.out / "clips")
    share = list(enumerate(plan.clips))[shard.index :: shard.count]
    description = f"measuring {protocol.card.name}"
    if shard.count > 1:
        description += f" (share {shard.index + 1} of {shard.count})"
    for _, clip in track(share, total=len(share), description=description, unit="clips"):
        if store.get(clip.clip_id, run.key) is None:
            _measure_one(protocol, run, clip, store)
    done, _ = _measured(plan, run, shard)
    protocol.summarise(done, run, shard)


def finish(
    protocol: EvaluationProtocol, run: ProtocolRun, plan: Plan, identity: RunIdentity
) -> ProtocolReport:
    """Reduce all clips to records and write the report.

    Raises:
        MissingInputError: Some clips are not measured yet, or none could be used.
    """
    done, unusable = _measured(plan, run, Shard(0, 1))
    missing = len(plan.clips) - len(done) - len(unusable)
    if missing:
        raise MissingInputError(
            f"{missing} of {len(plan.clips)} clips are not measured yet: run the other shards, or "
            "run again without --shard"
        )
    if not done:
        reasons = sorted(set(unusable.values()))[:3]
        raise MissingInputError(f"no clip could be measured: {'; '.join(reasons)}")
    facts = _facts(protocol, run, plan, identity)
    if len(done) <= MAX_NAMED:
        facts = replace(facts, clip_ids=tuple(one.clip.clip_id for one in done))
    reduced = protocol.reduce(done, run, facts)
    report = _report(protocol, run, plan, identity, done, unusable, reduced)
    write_records(run.out / RECORDS, report.records)
    write_text(run.out / REPORT, report.canonical_json())
    return report


def _identify(
    protocol: EvaluationProtocol,
    run: ProtocolRun,
    plan: Plan,
    planned: Planned,
    options: PlanOptions,
) -> RunIdentity:
    variants = protocol.variants(run, planned)
    run.networks.check_all_asked(protocol.card.name)
    return RunIdentity(
        protocol=protocol.card.name,
        plan_sha256=plan.content_hash(),
        source_kind=run.source.kind,
        checkpoint_sha256=run.source.checkpoint_sha256,
        settings=dict(run.source.settings),
        networks=variants,
        followed=_is_followed(protocol, run, options),
    )


def _is_followed(protocol: EvaluationProtocol, run: ProtocolRun, options: PlanOptions) -> bool:
    """Return whether the source's settings are the protocol's, and nothing in it is assumed."""
    card = protocol.card
    if card.assumed or options.num_frames not in {None, card.sampling.get("num_frames")}:
        return False
    settings = run.source.settings
    for key, wanted in card.sampling.items():
        value: object = settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if settings and value != wanted:
            return False
    is_measured = run.source.kind == "reconstruction"
    return not is_measured or settings.get("precision") == card.precision


def _measure_one(
    protocol: EvaluationProtocol, run: ProtocolRun, clip: PlannedClip, store: TensorStore
) -> None:
    """Measure one clip and keep the result; a clip that cannot be used keeps its reason."""
    try:
        measurement = protocol.measure(clip, run)
    except MediaError as err:
        logger.warning("clip not measured", extra={"clip_id": clip.clip_id, "reason": str(err)})
        store.put(clip.clip_id, run.key, {}, {"reason": f"{err.reason}: {err.detail}"})
        return
    store.put(
        clip.clip_id, run.key, dict(measurement.features), {"scores": dict(measurement.scores)}
    )


def _measured(
    plan: Plan, run: ProtocolRun, shard: Shard
) -> tuple[list[MeasuredClip], dict[str, str]]:
    """Return a shard's measured clips in the plan's order, and why others could not be used."""
    store = TensorStore(run.out / "clips")
    done: list[MeasuredClip] = []
    unusable: dict[str, str] = {}
    for position, clip in list(enumerate(plan.clips))[shard.index :: shard.count]:
        stored = store.get(clip.clip_id, run.key)
        if stored is None:
            continue
        if "reason" in stored.facts:
            unusable[clip.clip_id] = str(stored.facts["reason"])
        else:
            done.append(MeasuredClip(position, clip, _scores(stored), stored.tensors))
    return done, unusable


def _scores(stored: Stored) -> dict[str, float]:
    scores = stored.facts.get("scores")
    if not isinstance(scores, dict):
        return {}
    return {str(name): float(value) for name, value in scores.items()}


def _facts(
    protocol: EvaluationProtocol, run: ProtocolRun, plan: Plan, identity: RunIdentity
) -> RunFacts:
    settings = identity.model_dump_json(include={"source_kind", "settings"})
    follows = identity.followed and not plan.small
    return RunFacts(
        seed=plan.seed,
        dataset_fingerprint=plan.dataset_sha256,
        checkpoint_sha256=run.source.checkpoint_sha256,
        sampling_fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
        bootstrap=run.bootstrap,
        split=plan.split,
        published_num=protocol.card.published_num if follows else None,
    )


def _report(
    protocol: EvaluationProtocol,
    run: ProtocolRun,
    plan: Plan,
    identity: RunIdentity,
    done: Sequence[MeasuredClip],
    unusable: dict[str, str],
    reduced: Reduced,
) -> ProtocolReport:
    card = protocol.card
    return ProtocolReport(
        protocol=card.name,
        title=card.title,
        question=card.question,
        identity=identity,
        seed=plan.seed,
        split=plan.split,
        dataset_sha256=plan.dataset_sha256,
        small=plan.small,
        step=run.source.step,
        num_planned=len(plan.clips),
        num_measured=len(done),
        unusable=unusable,
        records=reduced.records,
        size_curves=dict(reduced.size_curves),
        groups=reduced.groups,
        dimensions=dict(reduced.dimensions),
        extremes=tuple(
            _extremes(name, done, higher_is_better=higher)
            for name, higher in reduced.higher_is_better.items()
        ),
        videos={one.clip.clip_id: video_name(one.clip) for one in done} if run.keep_videos else {},
        facts=dict(reduced.facts),
    )


def _extremes(name: str, done: Sequence[MeasuredClip], *, higher_is_better: bool) -> ExtremeClips:
    rows = [(one.clip.clip_id, one.scores[name]) for one in done if name in one.scores]
    rows.sort(key=lambda row: row[1], reverse=higher_is_better)
    num = min(NUM_EXTREMES, len(rows) // 2)
    return ExtremeClips(
        metric=name,
        higher_is_better=higher_is_better,
        best=tuple(rows[:num]),
        worst=tuple(rows[len(rows) - num :][::-1]),
    )


def _write_once(path: Path, record: Plan | RunIdentity, out: Path) -> None:
    """Write a record, or find that the same one is there."""
    text = record.canonical_json()
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{out} holds a run of other data, model or settings; choose another --out"
            )
        return
    write_text(path, text)
