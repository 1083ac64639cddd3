"""The report: everything a run left behind, as one HTML file that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from svd.atomic import write_text
from svd.evaluation.report import words
from svd.evaluation.report.curation_work import CurationWork, read_curation_work
from svd.evaluation.report.data import Curation, Ingest, read_curation, read_ingest
from svd.evaluation.report.governance import (
    Lineage,
    RegisteredVersion,
    Registration,
    read_lineage,
    read_registration,
)
from svd.evaluation.report.metrics import Metrics, read_metrics
from svd.evaluation.report.overview import Fact, Timeline, read_facts, read_timeline
from svd.evaluation.report.samples import Samples, read_samples
from svd.evaluation.report.sources import Sources
from svd.evaluation.report.training import DENOISER_STAGES, TrainedModel, read_model
from svd.runtime.workspace import Workspace
from svd.types.evaluation import EvaluationReport

MEDIA_BUDGET_BYTES = 20_000_000  # of data URIs; keeps the page below 25 MB


@dataclass(frozen=True, slots=True)
class Page:
    """All sections; None means that its stage has not run.

    Attributes:
        facts: What identifies the run.
        timeline: Stages in order.
        ingest: Sources.
        curation: Kept and rejected clips.
        curation_work: What they cost, and what was given up.
        autoencoder: Its preview and curves.
        stages: Training stages, by name.
        samples: Videos.
        metrics: Numbers.
        registration: Gates.
        versions: What the registry holds.
        lineage: From the model to the sources.
        problems: Files that could not be read.
        num_left_out: Pictures and videos that found no room.
    """

    facts: tuple[Fact, ...]
    timeline: Timeline
    ingest: Ingest | None
    curation: Curation | None
    curation_work: CurationWork
    autoencoder: TrainedModel | None
    stages: tuple[tuple[str, str, TrainedModel | None], ...]
    samples: Samples | None
    metrics: Metrics | None
    registration: Registration | None
    versions: tuple[RegisteredVersion, ...]
    lineage: Lineage | None
    problems: tuple[str, ...]
    num_left_out: int


def write_report(
    workspace: Workspace,
    *,
    versions: Sequence[RegisteredVersion] = (),
    rendered_at: datetime | None = None,
) -> Path:
    """Write reports/index.html and return its path.

    Args:
        workspace: The checkout; whatever it holds is shown, the rest is named as missing.
        versions: What the registry holds; this package cannot ask it.
        rendered_at: Time on the page; now if None.
    """
    page = read_page(workspace, versions=versions, rendered_at=rendered_at or datetime.now(UTC))
    path = workspace.report
    write_text(path, render(page))
    return path


def read_page(
    workspace: Workspace, *, versions: Sequence[RegisteredVersion], rendered_at: datetime
) -> Page:
    """Collect all sections. Videos come first in the budget, then curves, then thumbnails."""
    sources = Sources(workspace, MEDIA_BUDGET_BYTES)
    report = sources.record(workspace.evaluation / "report.json", EvaluationReport)
    samples = read_samples(sources, report)
    return Page(
        facts=read_facts(sources, rendered_at=rendered_at),
        timeline=read_timeline(sources),
        ingest=read_ingest(sources),
        autoencoder=read_model(sources, "autoencoder", "Autoencoder"),
        stages=tuple(
            (stage, title, read_model(sources, stage, title))
            for stage, title in DENOISER_STAGES.items()
        ),
        curation=read_curation(sources),
        curation_work=read_curation_work(sources),
        samples=samples,
        metrics=read_metrics(sources, report),
        registration=read_registration(sources),
        versions=tuple(versions),
        lineage=read_lineage(sources),
        problems=tuple(dict.fromkeys(sources.problems)),
        num_left_out=sources.num_left_out,
    )


def render(page: Page) -> str:
    """Return the page's HTML; whatever comes from data is escaped."""
    environment = Environment(
        loader=PackageLoader("svd.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = words.count
    environment.filters["plural"] = words.plural
    # Our own files, inlined as they are; neither holds anything that came from data.
    parts = {
        name: Markup(environment.loader.get_source(environment, name)[0])  # type: ignore[union-attr]  # noqa: S704
        for name in ("style.css", "page.js")
    }
    template = environment.get_template("page.html.j2")
    return template.render(page=page, style=parts["style.css"], script=parts["page.js"])
