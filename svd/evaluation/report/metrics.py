"""The metrics section: each number with its N, interval, variant, controls and what others got."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from svd.evaluation.references import REFERENCES, differences
from svd.evaluation.report import plots
from svd.evaluation.report.sources import Sources
from svd.evaluation.report.svg import number
from svd.types.artifact import MetricRecord
from svd.types.evaluation import EvaluationReport


@dataclass(frozen=True, slots=True)
class Row:
    """A number of ours.

    Attributes:
        label: The metric's name; of a control, what was done.
        value: For a person.
        interval: "low to high", or "".
        num: Examples.
        paired: Whether sample and truth share their first frame.
        variant: Variant id.
        comparability: As in the record.
        note: What to know.
        card: (field, value) of the extractor's card.
    """

    label: str
    value: str
    interval: str
    num: int
    paired: bool
    variant: str
    comparability: str
    note: str
    card: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Published:
    """Somebody else's number, and why ours may not stand beside it."""

    value: str
    system: str
    task: str
    source: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its controls, a picture of all of them, and published values."""

    main: Row
    better: str  # "higher" or "lower"
    controls: tuple[Row, ...]
    picture: Markup | None
    published: tuple[Published, ...]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that was measured."""

    metrics: tuple[Metric, ...]
    retrieval: Metric | None
    retrieval_picture: Markup
    size_curve: Markup | None
    size_curve_name: str
    checkpoint: str
    dataset: str


def read_metrics(sources: Sources, report: EvaluationReport | None) -> Metrics | None:
    """Return what was measured, or None if evaluate has not run."""
    records = sources.records(sources.workspace.evaluation / "records.jsonl", MetricRecord)
    if not records or report is None:
        return None
    metrics = tuple(
        _metric(record, [one for one in records if one.control_of == record.name])
        for record in records
        if record.control_of is None
    )
    heading = [one for one in metrics if one.main.label == "first-frame retrieval"]
    return Metrics(
        metrics=metrics,
        retrieval=heading[0] if heading else None,
        retrieval_picture=plots.heatmap(
            report.retrieval_distances,
            labels=[scores.clip_id for scores in report.clips],
            label="Distance of each sample's first frame to each condition",
        ),
        size_curve=_size_curve(report),
        size_curve_name=report.size_curve_name,
        checkpoint=records[0].checkpoint_sha256,
        dataset=records[0].dataset_fingerprint,
    )


def _metric(record: MetricRecord, controls: Sequence[MetricRecord]) -> Metric:
    marks = [
        plots.Mark(_label(one), one.value, one.low, one.high, main=one is record)
        for one in (record, *controls)
    ]
    return Metric(
        main=_row(record),
        better="higher" if record.higher_is_better else "lower",
        controls=tuple(_row(one) for one in controls),
        picture=plots.strip(marks, label=f"{record.name} and its controls") if controls else None,
        published=tuple(
            Published(
                number(reference.value),
                reference.system,
                reference.task,
                reference.source,
                differences(record, reference),
            )
            for reference in REFERENCES
            if reference.metric == record.name
        ),
    )


def _row(record: MetricRecord) -> Row:
    has_interval = record.low is not None and record.high is not None
    low, high = record.low or 0.0, record.high or 0.0
    return Row(
        label=_label(record),
        value=number(record.value),
        interval=f"{number(low)} to {number(high)}" if has_interval else "",
        num=record.num,
        paired=record.paired,
        variant=record.variant,
        comparability=record.comparability,
        note=record.note,
        card=tuple((key, str(value)) for key, value in (record.extractor or {}).items()),
    )


def _label(record: MetricRecord) -> str:
    _, found, control = record.name.partition(" (control: ")
    return control.removesuffix(")") if found and record.control_of else record.name


def _size_curve(report: EvaluationReport) -> Markup | None:
    if len(report.size_curve) < 2:
        return None
    series = plots.Series(
        report.size_curve_name,
        tuple((float(point.num), point.mean) for point in report.size_curve),
        band=tuple(point.std for point in report.size_curve),
    )
    return plots.line_chart(
        [series],
        label=f"{report.size_curve_name} of random subsets by their size",
        x_label="clips (N)",
        y_label=report.size_curve_name,
        dots=True,
    )
