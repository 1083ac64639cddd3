"""The page's head: what this run is, in a line of large numbers, and when each stage ran."""

from dataclasses import dataclass
from datetime import datetime

from svd.evaluation.report import words
from svd.evaluation.report.sources import Sources
from svd.runtime.revision import find_revision
from svd.types.stage import CHAIN, STAGES, StageRun


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what stands behind it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage on the timeline.

    Attributes:
        stage: Its name.
        wall: How long it took, or None if it has not run here.
        left: Where its bar starts, percent of the whole.
        width: Percent of the whole.
        started: When, for a person.
        facts: Headline numbers.
        warnings: What it warned of.
    """

    stage: str
    wall: str | None
    left: float
    width: float
    started: str
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stages of the main chain and those beside it that were run, in order."""

    rows: tuple[StageRow, ...]
    total: str
    num_run: int


def read_timeline(sources: Sources) -> Timeline:
    """Return what the last run of each stage said.

    Bars stand end to end, scaled by duration: stages of one table may be of different days.
    """
    read = {stage: sources.record(sources.workspace.stage_run(stage), StageRun) for stage in STAGES}
    found = {stage: run for stage, run in read.items() if run is not None or stage in CHAIN}
    runs = [run for run in found.values() if run is not None]
    total = sum(run.wall_s for run in runs)
    rows, before = [], 0.0
    for stage, run in found.items():
        if run is None:
            rows.append(StageRow(stage, None, 100 * before / (total or 1), 0.0, "", (), ()))
            continue
        rows.append(
            StageRow(
                stage=stage,
                wall=words.duration(run.wall_s),
                left=100 * before / total if total else 0.0,
                width=100 * run.wall_s / total if total else 0.0,
                started=_when(run.started_at),
                facts=tuple(Fact(k, words.fact(v)) for k, v in run.report.summary.items()),
                warnings=run.report.warnings,
            )
        )
        before += run.wall_s
    return Timeline(tuple(rows), words.duration(total), len(runs))


def read_facts(sources: Sources, *, rendered_at: datetime) -> tuple[Fact, ...]:
    """Return what identifies the run: code, group of stages, time of this page."""
    facts = []
    revision = find_revision(sources.workspace.root)
    if revision is not None:
        changed = f" + {words.plural(len(revision.changed), 'changed file')}"
        facts.append(
            Fact("code", words.short(revision.commit) + (changed if revision.changed else ""))
        )
    last = sources.record(sources.workspace.stage_run("register"), StageRun) or sources.record(
        sources.workspace.stage_run("evaluate"), StageRun
    )
    if last is not None and last.pipeline_run:
        facts.append(Fact("pipeline run", last.pipeline_run))
    facts.append(Fact("page made", rendered_at.strftime("%Y-%m-%d %H:%M UTC")))
    return tuple(facts)


def _when(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return stamp
