"""The report of a protocol run: one page to look at, one table in Markdown, beside the JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from svd.atomic import write_text
from svd.errors import IntegrityError
from svd.evaluation.protocols.engine import REPORT
from svd.evaluation.references import Reference, differences, references_of
from svd.evaluation.report import figures, plots, words
from svd.evaluation.report.metrics import Metric, framed_metric
from svd.evaluation.report.svg import number
from svd.types.artifact import MetricRecord
from svd.types.protocol import ProtocolReport

PAGE, MARKDOWN = "index.html", "report.md"
NUM_SHOWN = 12  # videos that are shown besides the best and worst
_MIN_SPOKES = 3  # of a radar


@dataclass(frozen=True, slots=True)
class Compared:
    """A published value beside ours.

    Attributes:
        reference: What was published.
        ours: Our value as text, or "".
        reasons: Why they may not be compared; empty if they may.
    """

    reference: Reference
    ours: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip's videos, as paths beside the page."""

    clip_id: str
    generated: str
    truth: str | None
    caption: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot with its title and a sentence on how to read it."""

    title: str
    picture: Markup
    note: str


def write_pages(out: Path, report: ProtocolReport) -> tuple[Path, Path]:
    """Write index.html and report.md of a run; return their paths.

    Args:
        out: The run's folder; folders beside it hold runs of other checkpoints.
        report: What the run ended in.
    """
    compared = compare(report)
    html = _render(out, report, compared)
    paths = (out / PAGE, out / MARKDOWN)
    for path, text in zip(paths, (html, markdown(report, compared)), strict=True):
        write_text(path, text)
    return paths


def compare(report: ProtocolReport) -> tuple[Compared, ...]:
    """Return every published value of the protocol, and whether ours may stand beside it.

    Only a record whose name is the published metric's is shown beside it, and a stand-in's never
    is.
    """
    by_name = {one.name: one for one in report.records if one.control_of is None}
    rows = []
    for reference in references_of(report.protocol):
        record = by_name.get(reference.metric)
        if record is None:
            reasons: tuple[str, ...] = (f"{reference.metric} was not measured",)
        else:
            reasons = differences(record, reference)
        shown = "" if record is None else number(record.value)
        rows.append(Compared(reference, shown, reasons))
    return tuple(rows)


def markdown(report: ProtocolReport, compared: Sequence[Compared]) -> str:
    """Return the report as Markdown."""
    lines = [f"# {report.title}", "", report.question, ""]
    lines += [f"- {name}: {value}" for name, value in _facts(report)]
    lines += ["", "| metric | value | interval | N | paired | comparability | variant |"]
    lines.append("|---|---|---|---|---|---|---|")
    for one in report.records:
        lines.append(
            f"| {_cell(one.name)} | {number(one.value)} | {_interval(one)} | {one.num} | "
            f"{'yes' if one.paired else 'no'} | {one.comparability} | `{_cell(one.variant)}` |"
        )
    if compared:
        lines += ["", "| published | metric | value | ours | may be compared | source |"]
        lines.append("|---|---|---|---|---|---|")
        for row in compared:
            may = "yes" if not row.reasons else "no: " + "; ".join(row.reasons)
            theirs = row.reference
            lines.append(
                f"| {_cell(theirs.system)} | {_cell(theirs.metric)} | {number(theirs.value)} | "
                f"{row.ours} | {_cell(may)} | {_cell(theirs.source)} |"
            )
    if report.groups:
        lines += ["", "| metric | group | value | N |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(one.metric)} | {_cell(one.group)} | {number(one.value)} | {one.num} |"
            for one in report.groups
        ]
    if report.unusable:
        lines += ["", "Clips that could not be measured:", ""]
        lines += [f"- `{clip_id}`: {reason}" for clip_id, reason in report.unusable.items()]
    return "\n".join(lines) + "\n"


def _render(out: Path, report: ProtocolReport, compared: Sequence[Compared]) -> str:
    loaders = [PackageLoader("svd.evaluation.protocols"), PackageLoader("svd.evaluation.report")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["plural"] = words.plural
    # Our own files, inlined as they are; neither holds anything that came from data.
    style, script = (
        Markup(environment.loader.get_source(environment, name)[0])  # type: ignore[union-attr]  # noqa: S704
        for name in ("style.css", "page.js")
    )
    return environment.get_template("protocol.html.j2").render(
        report=report,
        facts=_facts(report),
        metrics=_metrics(report),
        compared=compared,
        pictures=_pictures(out, report),
        extremes=_extremes(out, report),
        others=_some(out, report),
        style=style,
        script=script,
    )


def _facts(report: ProtocolReport) -> tuple[tuple[str, str], ...]:
    identity = report.identity
    measured = words.count(report.num_measured)
    facts = [
        ("source", identity.source_kind),
        ("checkpoint", identity.checkpoint_sha256[:16]),
        ("clips", f"{measured} of {words.count(report.num_planned)} planned"),
        ("data", report.dataset_sha256[:16]),
        ("published split", report.split or "not verified"),
        ("seed", str(report.seed)),
        ("settings", "as the protocol says" if identity.followed else "ours, see below"),
        ("networks", ", ".join(identity.networks) or "none"),
    ]
    if report.step is not None:
        facts.insert(2, ("step", words.count(report.step)))
    facts += [(name, str(value)) for name, value in report.facts.items()]
    return tuple(facts)


def _metrics(report: ProtocolReport) -> tuple[Metric, ...]:
    return tuple(
        framed_metric(one, [each for each in report.records if each.control_of == one.name], ())
        for one in report.records
        if one.control_of is None
    )


def _pictures(out: Path, report: ProtocolReport) -> tuple[Picture, ...]:
    pictures = [
        _size_curve(name, report) for name, points in report.size_curves.items() if len(points) > 1
    ]
    if len(report.dimensions) >= _MIN_SPOKES:
        drawn = figures.radar(report.dimensions, label="Dimensions on their suite's own scale")
        note = "Raw scores on VBench's scale of each dimension, cut off at its ends."
        pictures.append(Picture("Dimensions", drawn, note))
    for metric in dict.fromkeys(one.metric for one in report.groups):
        rows = [(one.group, one.value, one.num) for one in report.groups if one.metric == metric]
        drawn = figures.bars(rows, label=f"{metric} by group", unit=metric)
        pictures.append(Picture(f"{metric} by group", drawn, ""))
    return (*pictures, *_against_step(out, report))


def _size_curve(name: str, report: ProtocolReport) -> Picture:
    points = report.size_curves[name]
    series = plots.Series(
        name,
        tuple((float(point.num), point.mean) for point in points),
        band=tuple(point.std for point in points),
    )
    drawn = plots.line_chart(
        [series], label=f"{name} of random subsets", x_label="clips (N)", y_label=name, dots=True
    )
    note = "Random subsets of the same clips: the value falls with N for no other reason than N."
    return Picture(f"{name} against N", drawn, note)


def _against_step(out: Path, report: ProtocolReport) -> list[Picture]:
    """Return each metric over the checkpoints measured in folders beside this one."""
    runs = [one for one in _siblings(out) if one.step is not None]
    pictures = []
    for record in report.records:
        if record.control_of is not None:
            continue
        points = sorted(
            (float(run.step or 0), other.value)
            for run in runs
            for other in run.records
            if _same_measurement(record, other)
        )
        if len({step for step, _ in points}) > 1:
            drawn = plots.line_chart(
                [plots.Series(record.name, tuple(points))],
                label=f"{record.name} over training",
                x_label="optimizer step",
                y_label=record.name,
                dots=True,
            )
            note = "Checkpoints measured in the same variant, on the same data, with the same N."
            pictures.append(Picture(f"{record.name} against step", drawn, note))
    return pictures


def _same_measurement(ours: MetricRecord, other: MetricRecord) -> bool:
    """Return whether two records may lie on one curve."""
    return (
        ours.name == other.name
        and ours.variant == other.variant
        and ours.dataset_fingerprint == other.dataset_fingerprint
        and ours.sampling_fingerprint == other.sampling_fingerprint
    )


def _siblings(out: Path) -> list[ProtocolReport]:
    reports = []
    for path in sorted(out.parent.glob(f"*/{REPORT}")):
        try:
            text = path.read_text(encoding="utf-8")
            reports.append(ProtocolReport.parse(text, origin=str(path)))
        except IntegrityError:
            continue  # a folder of something else, or of an older release
    return reports


def _extremes(
    out: Path, report: ProtocolReport
) -> tuple[tuple[str, tuple[Shown, ...], tuple[Shown, ...]], ...]:
    """Return, for each per-clip metric, its best and worst clips."""
    return tuple(
        (
            one.metric,
            tuple(_shown(out, report, clip_id, number(value)) for clip_id, value in one.best),
            tuple(_shown(out, report, clip_id, number(value)) for clip_id, value in one.worst),
        )
        for one in report.extremes
        if one.best and report.videos
    )


def _some(out: Path, report: ProtocolReport) -> tuple[Shown, ...]:
    return tuple(_shown(out, report, clip_id, "") for clip_id in list(report.videos)[:NUM_SHOWN])


def _shown(out: Path, report: ProtocolReport, clip_id: str, caption: str) -> Shown:
    name = report.videos[clip_id]
    truth = f"{name}.truth.mp4"
    return Shown(
        clip_id,
        f"videos/{quote(name)}.mp4",
        f"videos/{quote(truth)}" if (out / "videos" / truth).is_file() else None,
        caption,
    )


def _interval(record: MetricRecord) -> str:
    if record.low is None or record.high is None:
        return ""
    return f"{number(record.low)} to {number(record.high)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
