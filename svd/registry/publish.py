"""Writing to the registry: a version, a promotion, a rollback. Each is one annotated tag or two.

Writers of one repository take turns by a lock, and the tag's number makes the race visible
where no lock reaches: it is the number after the last one seen, and git lets one writer have it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from svd.errors import GateError
from svd.registry.catalog import RECORD_MARK, Catalog, record_path
from svd.registry.gate import decide
from svd.registry.git import GitRepo
from svd.registry.tags import stage_tag, version_tag
from svd.types.artifact import MetricRecord
from svd.types.gate import Decision
from svd.types.version import ModelVersion, Promotion, StageLabel

_LOCK_WITHIN_S = 60.0  # a writer holds it for a second or two
_RECORDED_FILES = ("dvc.lock", "params.yaml", "dvc.yaml")  # as they are now, committed or not


def register_version(
    root: Path, version: ModelVersion, *, series: str, extra_files: dict[str, str]
) -> ModelVersion:
    """Make a version and put it into the stage "candidate"; return it with its number.

    The tag points to a commit of its own, on top of HEAD, that holds the recipe, the graph, the
    lock and the version's record. A candidate that equals a registered version gets that one's
    number, and nothing is written.

    Args:
        root: The checkout.
        version: The candidate, without a number.
        series: Major and minor number, e.g. "0.1".
        extra_files: More files of the commit, path -> text.

    Raises:
        GateError: The gates have not passed, or git refused.
    """
    if not version.decision.passed:
        raise GateError(f"{version.name}: gates: {'; '.join(version.decision.reasons)}")
    with _writing(root, version.name) as catalog:
        equal = find_equal(catalog, version)
        if equal is not None:
            return equal
        number = catalog.next_version(series)
        numbered = version.model_copy(update={"version": number})
        recorded = {
            name: (root / name).read_text(encoding="utf-8")
            for name in _RECORDED_FILES
            if (root / name).is_file()
        }
        record = numbered.model_dump_json(indent=2) + "\n"
        files = {**recorded, **extra_files, record_path(version.name, number): record}
        title = f"{version.name} {number}"
        commit = catalog.repo.commit_files(catalog.repo.head(), files, f"Register {title}\n")
        gates = len(version.decision.verdicts)
        message = f"{title}: {gates} gate{'s' * (gates != 1)} passed\n"
        if not catalog.repo.create_tag(version_tag(version.name, number), commit, message):
            raise GateError(f"{title}: another process registered this number; run register again")
        promotion = _promotion(
            numbered, "candidate", "register", "svd register", None, version.decision
        )
        _assign(catalog, promotion, commit)
    return numbered


def find_equal(catalog: Catalog, version: ModelVersion) -> ModelVersion | None:
    """Return the registered version that is the same model with the same record, if any."""
    wanted = version.identity()
    for number in reversed(catalog.versions):
        path = record_path(catalog.name, number)
        if catalog.repo.read(catalog.commit(number), path) is None:
            continue  # registered by another tool
        record = catalog.record(number)
        if record.identity() == wanted:
            return record
    return None


def promote(
    catalog: Catalog,
    version: str,
    stage: StageLabel,
    *,
    approver: str,
    note: str = "",
    replacing: str | None = None,
) -> Promotion:
    """Give a stage to a version.

    The gates are judged again: against what is in production now, not against what was there
    when the version was registered.

    Args:
        catalog: What the approver saw. If the stage has changed since, the promotion is refused.
        version: "v0.1.2", or another form that `Catalog.resolve` takes.
        stage: The stage to give.
        approver: Who answers for it.
        note: Why, in their words.
        replacing: The version that must be in the stage now; "none" if it must be empty.

    Raises:
        GateError: No approver, no such version, a gate does not pass, or a race was lost.
    """

    def choose(now: Catalog) -> str:
        held = now.in_stage(stage)
        if replacing is not None and replacing != (held or "none"):
            raise GateError(
                f"{now.name}: {stage} holds {held or 'nothing'}, not {replacing}: not promoted"
            )
        return now.resolve(version)

    return _change(catalog, stage, "promote", choose, approver=approver, note=note)


def roll_back(catalog: Catalog, stage: StageLabel, *, approver: str, note: str = "") -> Promotion:
    """Give a stage back to the version that held it before.

    Raises:
        GateError: No approver, no earlier version that is still registered, or a race was lost.
    """

    def choose(now: Catalog) -> str:
        return previous_version(now, stage)

    return _change(catalog, stage, "rollback", choose, approver=approver, note=note)


def previous_version(catalog: Catalog, stage: StageLabel) -> str:
    """Return the version that a rollback of a stage leads to.

    Going back twice goes back two versions, not back and forth: what was rolled back is out.

    Raises:
        GateError: No earlier version is still registered.
    """
    path: list[str] = []  # a stack: a promotion puts a version on it, a rollback takes some off
    for version, action in catalog.held(stage):
        if action == "rollback" and version in path:
            while path[-1] != version:
                path.pop()
        else:
            path.append(version)
    active = catalog.in_stage(stage)
    earlier = [v for v in path if v in catalog.versions and v != active]
    if not earlier:
        raise GateError(f"{catalog.name}: no earlier version held {stage}: nothing to go back to")
    return earlier[-1]


def _change(
    seen: Catalog,
    stage: StageLabel,
    action: Literal["promote", "rollback"],
    choose: Callable[[Catalog], str],
    *,
    approver: str,
    note: str,
) -> Promotion:
    if not approver.strip():
        raise GateError(f"{seen.name}: {action} of {stage} needs the name of who approves it")
    with _writing(seen.repo.root, seen.name) as now:
        if now.last_counter(stage) != seen.last_counter(stage):
            holder = now.in_stage(stage) or "nothing"
            raise GateError(f"{seen.name}: {stage} was changed meanwhile and holds {holder} now")
        version = choose(now)
        if now.in_stage(stage) == version:
            raise GateError(f"{seen.name}: {version} holds {stage} already")
        record = now.record(version)
        decision = record.decision
        if action == "promote":
            decision = _judge_again(now, record)
        promotion = _promotion(record, stage, action, approver, now.in_stage(stage), decision, note)
        if not decision.passed:
            raise GateError(f"{seen.name} {version}: {'; '.join(decision.reasons)}")
        _assign(now, promotion, now.commit(version))
    return promotion


def _judge_again(catalog: Catalog, record: ModelVersion) -> Decision:
    gates = [item.gate for item in record.decision.verdicts]
    return decide(gates, record.metrics, production_metrics(catalog, besides=record.version))


def production_metrics(
    catalog: Catalog, *, besides: str | None = None
) -> tuple[MetricRecord, ...] | None:
    """Return what was measured of the version in production; None if there is no other one."""
    version = catalog.in_stage("production")
    return None if version in {None, besides} else catalog.record(str(version)).metrics


def _promotion(
    record: ModelVersion,
    stage: StageLabel,
    action: Literal["register", "promote", "rollback"],
    approver: str,
    replaced: str | None,
    decision: Decision,
    note: str = "",
) -> Promotion:
    return Promotion(
        name=record.name,
        version=str(record.version),
        stage=stage,
        action=action,
        approver=approver,
        note=note,
        replaced=replaced,
        decision=decision,
        weights_sha256=record.weights_sha256,
        dvc_lock_sha256=record.dvc_lock_sha256,
        wandb_run_id=record.wandb_run_id,
    )


def _assign(catalog: Catalog, promotion: Promotion, commit: str) -> None:
    """Write the tag. gto and dvc order assignments by whole seconds, so each gets its own."""
    _wait_for_new_second(catalog, promotion.stage)
    counter = catalog.counter + 1
    tag = stage_tag(promotion.name, promotion.stage, counter)
    what = f"{promotion.name} {promotion.version}: {promotion.action} to {promotion.stage}"
    note = f"\n{promotion.note}\n" if promotion.note else ""
    message = f"{what} by {promotion.approver}\n{note}{RECORD_MARK}{promotion.canonical_json()}\n"
    if not catalog.repo.create_tag(tag, commit, message):
        raise GateError(f"{what}: another process took number {counter}; look and try again")


def _wait_for_new_second(catalog: Catalog, stage: str) -> None:
    last = max((e.tag.time_s for e in catalog.events if e.stage == stage), default=0)
    while (left := last + 1 - time.time()) > 0:
        time.sleep(min(left, 1.0))


@contextmanager
def _writing(root: Path, name: str) -> Iterator[Catalog]:
    """Yield the catalog as it is while no other process of this repository can change it."""
    lock = FileLock(GitRepo(root).lock_file, timeout=_LOCK_WITHIN_S)
    try:
        with lock:
            yield Catalog.read(root, name)
    except Timeout as err:
        raise GateError(f"{name}: the registry was busy for {_LOCK_WITHIN_S:.0f} s") from err
