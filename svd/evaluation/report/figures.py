"""Plots of protocol runs: a radar of dimensions, bars by group."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from svd.evaluation.report.svg import Scale, canvas, element, number, path, tick_label

_RINGS = (0.25, 0.5, 0.75, 1.0)


def radar(values: Mapping[str, float], *, label: str) -> Markup:
    """Return a radar of values in 0..1, one spoke each, beginning at the top.

    Args:
        values: At least three, else the shape is empty.
        label: What the picture shows.
    """
    width, height, radius = 560.0, 330.0, 105.0
    middle = (width / 2, height / 2)
    names = list(values)

    def place(index: int, share: float) -> tuple[float, float]:
        angle = 2 * math.pi * index / len(names) - math.pi / 2
        return (
            middle[0] + radius * share * math.cos(angle),
            middle[1] + radius * share * math.sin(angle),
        )

    parts = []
    for ring in _RINGS:
        corners = path([place(index, ring) for index in range(len(names))]) + "Z"
        parts.append(element("path", class_="grid", d=corners, fill="none"))
    shape = path([place(index, values[name]) for index, name in enumerate(names)]) + "Z"
    parts.append(element("path", class_="band s0", d=shape))
    parts.append(element("path", class_="line s0", d=shape))
    for index, name in enumerate(names):
        x, y = place(index, values[name])
        tip = element("title", f"{name}: {number(values[name])}")
        parts.append(element("circle", tip, class_="dot s0", cx=x, cy=y, r=3))
        x, y = place(index, 1.14)
        anchor = "middle" if abs(x - middle[0]) < 8 else ("start" if x > middle[0] else "end")
        dimension, bracket, network = name.partition("[")  # in two lines, or it finds no room
        for line, text in enumerate((dimension, bracket + network)):
            at = y + 1 + 12 * line
            parts.append(element("text", text, class_="tick", x=x, y=at, text_anchor=anchor))
    return canvas(width, height, parts, label=label)


def bars(rows: Sequence[tuple[str, float, int]], *, label: str, unit: str) -> Markup:
    """Return one bar a row: name, value, count.

    Args:
        rows: At least one; values are not negative.
        label: What the picture shows.
        unit: Name of the axis.
    """
    left, width, step = 120.0, 420.0, 26.0
    height = step * len(rows) + 40
    top = max(value for _, value, _ in rows) or 1.0
    across = Scale(0, top * 1.05, start=left, stop=width - 90)
    parts = []
    for tick in across.ticks(4):
        x = across(tick)
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=6, y2=height - 34))
        parts.append(
            element(
                "text", tick_label(tick), class_="tick", x=x, y=height - 20, text_anchor="middle"
            )
        )
    for index, (name, value, num) in enumerate(rows):
        y = 8 + step * index
        tip = element("title", f"{name}: {number(value)}, {num} clips")
        bar = {"x": left, "y": y, "width": max(1.0, across(value) - left), "height": step - 10}
        parts.append(element("rect", tip, class_="bar-kept", rx=2, **bar))
        parts.append(element("text", name, class_="tick", x=left - 6, y=y + 12, text_anchor="end"))
        shown = f"{number(value)}  (N = {num})"
        parts.append(element("text", shown, class_="tick", x=across(value) + 5, y=y + 12))
    parts.append(element("text", unit, class_="axis-name", x=(left + width - 90) / 2, y=height - 5))
    return canvas(width, height, parts, label=label)
