"""One self-contained page about some runs: what they were run with, their curves, their media."""

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import jinja2

from svd.runtime.runs import Media, Run

_COLOURS: Final = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d")
_WIDTH, _HEIGHT, _MARGIN = 420, 200, 44  # of a chart, pixels
_POINTS_SHOWN: Final = 400  # of a curve; more cannot be told apart at this width
_MEDIA_SHOWN: Final = 12  # of a run, the last ones
_MEDIA_BYTES: Final = 8 << 20  # larger files are named, not embedded
_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}

Points = Sequence[tuple[float, float]]


class Difference(NamedTuple):
    """One key on which runs differ, with its value in each."""

    key: str
    values: tuple[str, ...]


class Shown(NamedTuple):
    """A medium as the page shows it."""

    caption: str
    kind: str  # "image", "video" or "file"
    source: str  # a data URI, or the path of a file that is not embedded


def render_page(runs: Sequence[Run], root: Path) -> str:
    """Return the page as HTML that needs no other file and no network.

    Args:
        runs: One or more; the first gets the first colour.
        root: The project; media are read from below it.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("runs.html.j2")
    return page.render(
        runs=runs,
        colours=[_COLOURS[index % len(_COLOURS)] for index in range(len(runs))],
        config=differences([run.config for run in runs]),
        summary=table([{**spent(run), **run.summary} for run in runs]),
        total_cost=total(run.cost for run in runs),
        charts=list(_charts(runs)),
        media=[[_show(item, root) for item in _last_media(run)] for run in runs],
    )


def differences(configs: Sequence[Mapping[str, object]]) -> list[Difference]:
    """Return the keys of nested settings on which runs differ; of one run, all of them."""
    found = table([dict(_leaves(config)) for config in configs])
    return [row for row in found if len(configs) == 1 or len(set(row.values)) > 1]


def table(columns: Sequence[Mapping[str, object]]) -> list[Difference]:
    """Return all keys with their value in each column; "" where a column lacks one."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [Difference(key, tuple(_text(column.get(key)) for column in columns)) for key in keys]


def spent(run: Run) -> dict[str, object]:
    """Return what a run has used up over all its attempts, as far as it was told."""
    known = {"device-hours": run.device_hours, "cost": run.cost}
    return {key: value for key, value in known.items() if value is not None}


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(tree) if isinstance(tree, list) else tree


class Line(NamedTuple):
    """A curve as SVG draws it."""

    colour: str
    points: str


class Chart(NamedTuple):
    """One metric of all runs that have it, in the coordinates of the picture."""

    title: str
    lines: tuple[Line, ...]
    x_labels: tuple[str, str]
    y_labels: tuple[str, str]  # bottom, top
    width: int = _WIDTH
    height: int = _HEIGHT
    margin: int = _MARGIN


def _charts(runs: Sequence[Run]) -> Iterator[Chart]:
    curves = [run.curves for run in runs]
    for key in sorted({key for found in curves for key in found}):
        drawn = [
            (_COLOURS[index % len(_COLOURS)], finite)
            for index, found in enumerate(curves)
            if (finite := [p for p in found.get(key, ()) if all(map(math.isfinite, p))])
        ]
        if drawn:
            yield _chart(key, drawn)


def _chart(title: str, drawn: Sequence[tuple[str, Points]]) -> Chart:
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)

    def place(point: tuple[float, float]) -> str:
        x = (point[0] - left) / ((right - left) or 1.0)
        y = (point[1] - low) / ((high - low) or 1.0)
        across = _MARGIN + x * (_WIDTH - _MARGIN - 8)
        down = 8 + (1.0 - y) * (_HEIGHT - _MARGIN)
        return f"{across:.1f},{down:.1f}"

    lines = tuple(
        Line(colour, " ".join(place(point) for point in _thin(points))) for colour, points in drawn
    )
    return Chart(title, lines, (f"{left:g}", f"{right:g}"), (f"{low:.4g}", f"{high:.4g}"))


def _thin(points: Points) -> Points:
    every = max(1, math.ceil(len(points) / _POINTS_SHOWN))
    return [*points[:-1:every], points[-1]]


def _last_media(run: Run) -> Sequence[Media]:
    return [item for item in run.media if item.kind != "table-file"][-_MEDIA_SHOWN:]


def _show(item: Media, root: Path) -> Shown:
    caption = item.key if item.step is None else f"{item.key}, step {item.step}"
    path = root / item.path
    kind = _TYPES.get(path.suffix.lower())
    if kind is None or not path.is_file() or path.stat().st_size > _MEDIA_BYTES:
        return Shown(caption, "file", item.path)
    data = base64.b64encode(path.read_bytes()).decode()
    return Shown(caption, kind.partition("/")[0], f"data:{kind};base64,{data}")
