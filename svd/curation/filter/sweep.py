"""How many clips and hours survive each combination of thresholds, before any is chosen.

The paper drops 0, 12.5, 25 or 50 % of the clips on each annotation (appendix E.2.2). Here one pass
over the score table puts every clip into the cell of the strictest share it survives on each axis;
summing the cells from the strict end answers all combinations at once.
"""

import csv
import io
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float64, Int64

from svd.config.curation import FilterConfig, Threshold
from svd.curation.filter.score_table import ScoreTable
from svd.curation.filter.thresholds import Bounds
from svd.errors import ConfigError
from svd.types.curation import SweepAxis, SweepReport, SweepRow

PAPER_SHARES: Final = (0.125, 0.25, 0.5)  # appendix E.2.2
MAX_AXES: Final = 6  # with the paper's shares: 4,096 combinations


@dataclass(frozen=True, slots=True)
class Axis:
    """A score to sweep, and the end of it that is dropped."""

    score: str
    drops: Literal["lowest", "highest"]


def axes_of(thresholds: Mapping[str, Threshold]) -> tuple[Axis, ...]:
    """Return an axis for each of a recipe's thresholds, dropping the end that it drops."""
    return tuple(
        Axis(
            score, "lowest" if bound.min is not None or bound.drop_lowest is not None else "highest"
        )
        for score, bound in thresholds.items()
    )


def parse_axes(names: Sequence[str] | None, config: FilterConfig) -> tuple[Axis, ...]:
    """Return the axes asked for; an end that is not named is the one the recipe drops.

    Args:
        names: NAME, NAME:lowest or NAME:highest; None is every score with a threshold.
        config: The recipe's section.

    Raises:
        ConfigError: Something else stands after the colon.
    """
    of_recipe = {axis.score: axis for axis in axes_of(config.in_force)}
    if not names:
        return tuple(of_recipe.values())
    axes = []
    for name in names:
        score, _, end = name.partition(":")
        if end not in ("", "lowest", "highest"):
            raise ConfigError(f"--score {name}: after the colon stands lowest or highest")
        known = of_recipe.get(score, Axis(score, "lowest"))
        axes.append(Axis(score, "highest" if end == "highest" else "lowest") if end else known)
    return tuple(axes)


def sweep(
    table: ScoreTable, axes: Sequence[Axis], config: FilterConfig, *, shares: Sequence[float]
) -> SweepReport:
    """Count what survives every combination of shares over the axes.

    Args:
        table: The scores.
        axes: At least one, at most MAX_AXES.
        config: Says whether a clip without a score survives, and the thresholds of the recipe's
            own row. Near-duplicates are no threshold: they are not counted here.
        shares: Above 0 and below 1; 0 is added.

    Raises:
        ConfigError: No axes or too many, an unknown score, or a share out of range.
    """
    started = time.monotonic()
    steps = _checked(axes, shares)
    measured = tuple(_measure_axis(table, axis, steps) for axis in axes)
    clips, seconds = _cells(table, measured, config, num_steps=len(steps))
    for dimension in range(len(axes)):
        clips, seconds = (_sum_from_strict_end(part, dimension) for part in (clips, seconds))
    rows = tuple(
        SweepRow(
            shares=tuple(steps[place] for place in places),
            num_clips=int(clips[places]),
            hours=round(float(seconds[places]) / 3600, 6),
        )
        for places in itertools.product(range(len(steps)), repeat=len(axes))
    )
    recipe = _recipe_row(table, config)
    return SweepReport(
        num_clips=table.num_clips,
        hours=round(table.seconds / 3600, 6),
        shares=steps,
        axes=measured,
        rows=rows,
        recipe=recipe,
        seconds=round(time.monotonic() - started, 3),
    )


def as_csv(report: SweepReport) -> str:
    """Return the combinations as CSV: one column per axis, then clips, hours and their shares."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    dropped = [f"{axis.score} ({axis.drops} dropped)" for axis in report.axes]
    writer.writerow([*dropped, "clips", "hours", "share_of_clips", "share_of_hours"])
    for row in report.rows:
        kept = row.num_clips / max(1, report.num_clips), row.hours / max(1e-9, report.hours)
        writer.writerow([*row.shares, row.num_clips, row.hours, *(round(part, 6) for part in kept)])
    return text.getvalue()


def _checked(axes: Sequence[Axis], shares: Sequence[float]) -> tuple[float, ...]:
    if not 1 <= len(axes) <= MAX_AXES:
        raise ConfigError(f"a sweep takes 1 to {MAX_AXES} scores, not {len(axes)}")
    names = [axis.score for axis in axes]
    if len(set(names)) < len(names):
        raise ConfigError(f"a score is named twice: {', '.join(names)}")
    wrong = [share for share in shares if not 0 < share < 1]
    if wrong or not shares:
        shown = wrong[0] if wrong else "none"
        raise ConfigError(f"a share must lie between 0 and 1, such as 0.25; given: {shown}")
    return (0.0, *sorted(set(shares)))


def _measure_axis(table: ScoreTable, axis: Axis, steps: Sequence[float]) -> SweepAxis:
    bounds = table.values_at(axis.score, steps[1:], from_top=axis.drops == "highest")
    return SweepAxis(
        score=axis.score,
        drops=axis.drops,
        bounds=(None, *bounds),
        num_missing=table.num_clips - table.num_with(axis.score),
    )


def _cells(
    table: ScoreTable, axes: Sequence[SweepAxis], config: FilterConfig, *, num_steps: int
) -> tuple[Int64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
    """Return the clips, and their seconds, by the strictest share survived on each axis."""
    of_missing = num_steps - 1 if config.missing_scores == "keep" else 0
    levels = [_level(table, axis, of_missing) for axis in axes]
    asked = table.ask(f"{', '.join(levels)}, count(*), sum(duration_s) FROM {{table}} GROUP BY ALL")
    shape = (num_steps,) * len(axes)
    clips, seconds = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    for *place, num, total in asked:
        clips[tuple(place)], seconds[tuple(place)] = num, total
    return clips, seconds


def _level(table: ScoreTable, axis: SweepAxis, of_missing: int) -> str:
    """Return SQL for the number of the strictest share that a clip survives on an axis."""
    column = table.column(axis.score)
    within = ">=" if axis.drops == "lowest" else "<="
    cases = [
        f"WHEN {column} {within} {bound!r} THEN {level}"
        for level, bound in reversed(list(enumerate(axis.bounds)))
        if bound is not None
    ]
    return f"CASE WHEN {column} IS NULL THEN {of_missing} {' '.join(cases)} ELSE 0 END"


def _sum_from_strict_end(cells: np.ndarray, dimension: int) -> np.ndarray:
    return np.flip(np.cumsum(np.flip(cells, dimension), dimension), dimension)


def _recipe_row(table: ScoreTable, config: FilterConfig) -> SweepRow | None:
    """Return what survives the recipe's own thresholds."""
    if not config.in_force:
        return None
    conditions = [
        _condition(table.column(score), table.bounds(score, threshold), config)
        for score, threshold in config.in_force.items()
    ]
    where = " AND ".join(conditions)
    asked = f"count(*), coalesce(sum(duration_s), 0) FROM {{table}} WHERE {where}"
    num, seconds = table.ask(asked)[0]
    return SweepRow(shares=(), num_clips=num, hours=round(seconds / 3600, 6))


def _condition(column: str, bounds: Bounds, config: FilterConfig) -> str:
    parts = [] if bounds.low is None else [f"{column} >= {bounds.low!r}"]
    parts += [] if bounds.high is None else [f"{column} <= {bounds.high!r}"]
    within = " AND ".join(parts) or f"{column} IS NOT NULL"
    return f"({within} OR {column} IS NULL)" if config.missing_scores == "keep" else f"({within})"
