"""The page's plots, as inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from svd.evaluation.report.svg import (
    Scale,
    canvas,
    element,
    number,
    path,
    spread,
    tick_label,
)
from svd.types.curation import Histogram

_LEFT, _LEFT_NAMED = 36.0, 54.0  # pixels before the plot: for tick labels; for a name as well
NUM_SERIES_COLOURS = 6  # classes s0..s5 of the style sheet


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        name: In the legend.
        points: (x, y), x rising.
        colour: Index of the style sheet's series colour.
        dashed: Whether the line is dashed.
        band: Half width of a band around the line at each point, or empty.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int = 0
    dashed: bool = False
    band: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A value on a strip: a metric's own, or a control's.

    Attributes:
        label: What it is.
        value: Where it stands.
        low: Lower end of its interval, or None.
        high: Upper end.
        main: Whether it is the metric itself.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    main: bool


def histogram(data: Histogram) -> Markup:
    """Return a score's distribution: all clips, the kept ones in front, bounds as lines."""
    width, height = 300.0, 150.0
    bounds = [bound for bound in (data.low, data.high) if bound is not None]
    low = min(data.edges[0], *bounds) if bounds else data.edges[0]
    high = max(data.edges[-1], *bounds) if bounds else data.edges[-1]
    across = Scale(*spread([low, high], pad=0.02), start=_LEFT, stop=width - 8)
    up = Scale(0, max(1, *data.counts) * 1.12, start=height - 24, stop=8)
    parts = _y_grid(up, width, left=_LEFT, count=3) + _x_axis(across, height - 24, count=5)
    rows = zip(data.edges, data.edges[1:], data.counts, data.counts_kept, strict=False)
    for left, right, total, kept in rows:
        tip = element("title", f"{number(left)} to {number(right)}: {total} clips, {kept} kept")
        for count, kind in ((total, "bar-all"), (kept, "bar-kept")):
            if count:
                x = across(left)
                parts.append(
                    element(
                        "rect",
                        tip,
                        class_=kind,
                        x=x + 0.5,
                        width=max(1.0, across(right) - x - 1),
                        y=up(count),
                        height=up(0) - up(count),
                        rx=1.5,
                    )
                )
    for bound, words, anchor in ((data.low, "min", "start"), (data.high, "max", "end")):
        if bound is None:
            continue
        x = across(bound)
        parts.append(element("line", class_="threshold", x1=x, x2=x, y1=6, y2=up(0)))
        shift = 4 if anchor == "start" else -4
        parts.append(
            element(
                "text",
                f"{words} {tick_label(bound)}",
                class_="threshold-label",
                x=x + shift,
                y=15,
                text_anchor=anchor,
            )
        )
    label = f"Histogram of {data.score}: {sum(data.counts)} clips, {sum(data.counts_kept)} kept"
    return canvas(width, height, parts, label=label)


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    height: float = 200.0,
    dots: bool = False,
) -> Markup:
    """Return a line chart with a grid, axis names and points that tell their values."""
    width = 400.0
    drawn = [one for one in series if one.points]
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points if y > 0 or not log_y]
    ys += [
        y + side * half
        for one in drawn
        for (_, y), half in zip(one.points, one.band, strict=False)
        for side in (-1, 1)
    ]
    across = Scale(*_span(xs), start=_LEFT_NAMED, stop=width - 10)
    low, high = spread(ys)
    if log_y:
        low, high = min(ys) / 1.15, max(ys) * 1.15
    up = Scale(low, high, start=height - 36, stop=10, log=log_y)
    parts = _y_grid(up, width, left=_LEFT_NAMED, count=4) + _x_axis(across, height - 36, count=6)
    parts.append(
        element("text", x_label, class_="axis-name", x=(_LEFT_NAMED + width - 10) / 2, y=height - 4)
    )
    parts.append(
        element(
            "text",
            y_label,
            class_="axis-name",
            transform=f"translate(11 {height / 2 - 12:.0f}) rotate(-90)",
        )
    )
    for one in drawn:
        places = [(across(x), up(y)) for x, y in one.points if y > 0 or not log_y]
        if one.band:
            rows = list(zip(one.points, one.band, strict=True))
            upper = [(across(x), up(y + half)) for (x, y), half in rows]
            lower = [(across(x), up(y - half)) for (x, y), half in reversed(rows)]
            parts.append(element("path", class_=f"band s{one.colour}", d=path(upper + lower) + "Z"))
        kind = "line dashed" if one.dashed else "line"
        parts.append(
            element(
                "path", element("title", one.name), class_=f"{kind} s{one.colour}", d=path(places)
            )
        )
        if dots or len(places) == 1:
            parts += [
                element(
                    "circle",
                    element("title", f"{one.name}: {number(y)} at {tick_label(x)}"),
                    class_=f"dot s{one.colour}",
                    cx=across(x),
                    cy=up(y),
                    r=3,
                )
                for x, y in one.points
                if y > 0 or not log_y
            ]
    return canvas(width, height, parts, label=label)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mark stands on its strip, in percent of the width."""

    mark: Mark
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Strip:
    """Values on a common axis, one a row; the page lays them out beside their names."""

    places: tuple[Place, ...]
    ticks: tuple[tuple[float, str], ...]  # percent, label


def strip(marks: Sequence[Mark]) -> Strip:
    """Return marks placed on the axis that holds all of them and their intervals."""
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    across = Scale(*spread(ends), start=0, stop=100)
    places = tuple(
        Place(
            mark,
            across(mark.value),
            None if mark.low is None else across(mark.low),
            None if mark.high is None else across(mark.high),
        )
        for mark in marks
    )
    return Strip(places, tuple((across(tick), tick_label(tick)) for tick in across.ticks(3)))


def heatmap(rows: Sequence[Sequence[float]], *, labels: Sequence[str], label: str) -> Markup:
    """Return a square matrix as shades, each row's smallest entry ringed.

    Shades are ranks within the row (dark is near), so that one odd row does not wash out all
    others.
    """
    count = len(rows)
    cell = max(8.0, min(22.0, 420.0 / count))
    side, margin = cell * count, 18.0
    parts = [
        element("text", "condition", class_="axis-name", x=margin + side / 2, y=12),
        element(
            "text",
            "sample",
            class_="axis-name",
            transform=f"translate(12 {margin + side / 2:.0f}) rotate(-90)",
        ),
    ]
    for i, row in enumerate(rows):
        order = sorted(range(count), key=row.__getitem__)
        nearest = order[0]
        for rank, j in enumerate(order):
            shade = (1 - rank / max(1, count - 1)) ** 2
            tip = f"sample {labels[i]}, condition {labels[j]}: {number(row[j])}, rank {rank + 1}"
            parts.append(
                element(
                    "rect",
                    element("title", tip),
                    class_="cell",
                    x=margin + j * cell + 0.5,
                    y=margin + i * cell + 0.5,
                    width=cell - 1,
                    height=cell - 1,
                    rx=1.5,
                    style=f"fill-opacity:{0.05 + 0.95 * shade:.3f}",
                )
            )
        kind = "hit" if nearest == i else "miss"
        parts.append(
            element(
                "circle",
                class_=f"ring {kind}",
                cx=margin + (nearest + 0.5) * cell,
                cy=margin + (i + 0.5) * cell,
                r=cell * 0.3,
            )
        )
    return canvas(side + margin + 4, side + margin + 4, parts, label=label)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 1, high + 1)


def _y_grid(up: Scale, width: float, *, left: float, count: int) -> list[Markup]:
    parts = []
    right = width - 8
    for tick in up.ticks(count):
        y = up(tick)
        parts.append(element("line", class_="grid", x1=left, x2=right, y1=y, y2=y))
        parts.append(
            element("text", tick_label(tick), class_="tick", x=left - 5, y=y + 3, text_anchor="end")
        )
    return parts


def _x_axis(across: Scale, y: float, *, count: int) -> list[Markup]:
    parts = [element("line", class_="axis", x1=across.start, x2=across.stop, y1=y, y2=y)]
    parts += [
        element(
            "text",
            tick_label(tick),
            class_="tick",
            x=across(tick),
            y=y + 13,
            text_anchor="middle",
        )
        for tick in across.ticks(count)
    ]
    return parts
