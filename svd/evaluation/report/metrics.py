"""The metrics section: each number with its N, interval, variant, controls and what others got."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from svd.evaluation.measures.first_frame import RETRIEVAL
from svd.evaluation.references import Reference, differences, published
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
    """A metric with its controls, all of them on one axis, and published values.

    Attributes:
        main: The metric itself.
        better: "higher" or "lower".
        rows: The metric and its controls, each with its place on the axis.
        ticks: Of the axis: percent, label. Empty if there are no controls.
        published: What others got.
    """

    main: Row
    better: str
    rows: tuple[tuple[Row, plots.Place], ...]
    ticks: tuple[tuple[float, str], ...]
    published: tuple[Published, ...]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that was measured.

    Attributes:
        framed: Metrics with controls or published values.
        plain: The others.
        retrieval: First-frame retrieval, or None if it was not measured.
        retrieval_picture: Samples against conditions.
        size_curve: The video distance against N.
        size_curve_name: Which distance that is.
        checkpoint: Of the model's weights.
        dataset: Of the held-out set.
    """

    framed: tuple[Metric, ...]
    plain: tuple[Metric, ...]
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
        framed_metric(
            record,
            [one for one in records if one.control_of == record.name],
            [one for one in published() if record.name in one.beside],
        )
        for record in records
        if record.control_of is None
    )
    retrieval = next((one for one in metrics if one.main.label == RETRIEVAL), None)
    others = [one for one in metrics if one is not retrieval]
    return Metrics(
        framed=tuple(one for one in others if one.ticks or one.published),
        plain=tuple(one for one in others if not (one.ticks or one.published)),
        retrieval=retrieval,
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


def framed_metric(
    record: MetricRecord, controls: Sequence[MetricRecord], references: Sequence[Reference]
) -> Metric:
    """Return a metric with its controls on one axis and what others published."""
    shown = (record, *controls)
    axis = plots.strip(
        [plots.Mark(_label(one), one.value, one.low, one.high, main=one is record) for one in shown]
    )
    return Metric(
        main=_row(record),
        better="higher" if record.higher_is_better else "lower",
        rows=tuple(zip(map(_row, shown), axis.places, strict=True)),
        ticks=axis.ticks if controls else (),
        published=tuple(
            Published(
                number(reference.value),
                reference.system,
                reference.task,
                reference.source,
                differences(record, reference),
            )
            for reference in references
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
