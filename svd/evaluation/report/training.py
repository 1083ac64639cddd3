"""The training sections: loss curves of each stage, by noise level, and the autoencoder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from markupsafe import Markup

from svd.evaluation.report import plots, words
from svd.evaluation.report.overview import Fact
from svd.evaluation.report.sources import Sources
from svd.types.artifact import ModelRecord

DENOISER_STAGES = {
    "pretrain-image": "Stage I, images",
    "pretrain-video": "Stage II, video",
    "finetune-t2v": "Stage III, text to video",
    "finetune-i2v": "Stage III, image to video",
}
# Fields of a history row that are no curve of their own.
_NOT_CURVES = frozenset({"step", "examples_seen", "phase", "lr", "grad_norm"})

_NUM_SHEETS = 3  # of samples while training, the last ones


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One training stage: facts of its model and its curves.

    Attributes:
        stage: Its name.
        title: For a person.
        facts: Parameters, steps, hashes.
        curves: (title, plot, names in the legend with their colours).
        previews: Data URIs of pictures the stage left.
    """

    stage: str
    title: str
    facts: tuple[Fact, ...]
    curves: tuple["Curve", ...]
    previews: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart with its legend."""

    title: str
    picture: Markup
    legend: tuple[tuple[str, int], ...]  # name, colour


def read_model(sources: Sources, stage: str, title: str) -> TrainedModel | None:
    """Return a trained stage, or None if it has not run."""
    folder = sources.workspace.model(stage)
    model = sources.record(folder / "model.json", ModelRecord)
    if model is None:
        return None
    rows = sources.rows(folder / "history.jsonl")
    curves = _autoencoder_curves(rows) if model.kind == "autoencoder" else _denoiser_curves(rows)
    sheets = sorted((folder / "samples").glob("step-*.png"))[-_NUM_SHEETS:]
    pictures = [*sorted(folder.glob("*.png")), *sorted(folder.glob("*.jpg")), *sheets]
    previews = [sources.embed_file(path) for path in pictures]
    return TrainedModel(
        stage=stage,
        title=title,
        facts=_facts(model),
        curves=tuple(curve for curve in curves if curve is not None),
        previews=tuple(preview for preview in previews if preview is not None),
    )


def _facts(model: ModelRecord) -> tuple[Fact, ...]:
    return (
        Fact("parameters", words.count(model.num_parameters)),
        Fact("steps", words.count(model.step)),
        Fact("examples seen", words.count(model.examples_seen)),
        Fact("weights", words.short(model.weights_sha256)),
        Fact("started from", words.short(model.init_sha256) if model.init_sha256 else "scratch"),
        Fact("data", words.short(model.dataset_fingerprint)),
    )


def _denoiser_curves(rows: Sequence[Mapping[str, object]]) -> tuple[Curve | None, ...]:
    loss = _chart(
        "Loss",
        (
            plots.Series("training", _points(rows, "loss"), colour=0),
            plots.Series("held out, EMA weights", _points(rows, "heldout_loss"), colour=1),
        ),
    )
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(_mapping(row, "loss_by_sigma"))
    ordered = sorted(names, key=_sigma_order)
    by_sigma = _chart(
        "Training loss by noise level",
        tuple(
            plots.Series(
                name,
                _nested_points(rows, "loss_by_sigma", name),
                colour=index % plots.NUM_SERIES_COLOURS,
            )
            for index, name in enumerate(ordered)
        ),
    )
    held_out = _chart(
        "Held-out loss by noise level",
        tuple(
            plots.Series(
                name,
                _nested_points(rows, "heldout_loss_by_sigma", name),
                colour=index % plots.NUM_SERIES_COLOURS,
            )
            for index, name in enumerate(
                sorted(
                    {n for row in rows for n in _mapping(row, "heldout_loss_by_sigma")},
                    key=_sigma_order,
                )
            )
        ),
    )
    return loss, by_sigma, held_out


def _autoencoder_curves(rows: Sequence[Mapping[str, object]]) -> tuple[Curve | None, ...]:
    """Return one chart for each number an autoencoder's history has, main loss first."""
    names = {
        name: None
        for row in rows
        for name, value in row.items()
        if isinstance(value, int | float) and name not in _NOT_CURVES
    }
    ordered = sorted(names, key=lambda name: (name != "loss", name))
    return tuple(
        _chart(name.replace("_", " "), (plots.Series(name, _points(rows, name)),), log_y=False)
        for name in ordered
    )


def _chart(title: str, series: tuple[plots.Series, ...], *, log_y: bool = True) -> Curve | None:
    drawn = [one for one in series if one.points]
    if not drawn:
        return None
    positive = all(y > 0 for one in drawn for _, y in one.points)
    picture = plots.line_chart(
        drawn,
        label=title,
        x_label="optimizer step",
        y_label="log scale" if log_y and positive else "",
        log_y=log_y and positive,
        dots=all(len(one.points) <= 12 for one in drawn),
    )
    return Curve(title, picture, tuple((one.name, one.colour) for one in drawn))


def _points(rows: Sequence[Mapping[str, object]], name: str) -> tuple[tuple[float, float], ...]:
    pairs = ((row.get("step"), row.get(name)) for row in rows)
    return tuple((float(x), float(y)) for x, y in pairs if _is_number(x) and _is_number(y))


def _nested_points(
    rows: Sequence[Mapping[str, object]], group: str, name: str
) -> tuple[tuple[float, float], ...]:
    flat = [{"step": row.get("step"), "y": _mapping(row, group).get(name)} for row in rows]
    return _points(flat, "y")


def _mapping(row: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _sigma_order(name: str) -> tuple[bool, float]:
    """Sort "sigma<0.3" before "sigma<1", and "sigma>=10" last."""
    digits = name.lstrip("sigma<>=")
    try:
        return name.startswith("sigma>="), float(digits)
    except ValueError:
        return True, 0.0
