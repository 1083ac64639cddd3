"""Physics-IQ's table: one row a scenario, twelve columns a view, lists of frames as text."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from svd.atomic import new_file
from svd.errors import IntegrityError, MissingInputError
from svd.evaluation.metrics.physics_iq import Motion, PhysicsIQ, View, physics_iq_score

VIEWS = ("perspective-left", "perspective-center", "perspective-right")
# Our field -> (column of the model against take 1, column of take 1 against take 2).
_COLUMNS = {
    "mse": ("v1_mse", "variance_mse"),
    "spatiotemporal_iou": ("spatiotemporal_iou_v1", "variance_spatiotemporal_iou"),
    "spatial_iou": ("spatial_iou_v1", "variance_spatial"),
    "weighted_spatial_iou": ("weighted_spatial_iou_v1", "variance_weighted_spatial"),
}


def score_physics_iq_table(path: Path) -> PhysicsIQ:
    """Return the score of a table in the official per-view format.

    Raises:
        MissingInputError: No such file.
        IntegrityError: A column is missing or a cell is not what it should be; says which.
    """
    return physics_iq_score(read_physics_iq_table(path))


def read_physics_iq_table(path: Path) -> tuple[View, ...]:
    """Return every view of every scenario; columns about take 2 alone are not needed.

    Raises:
        MissingInputError: No such file.
        IntegrityError: A column is missing or a cell is not what it should be; says which.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise IntegrityError(f"{path}: a table without rows")
    return tuple(
        View(
            scenario=_cell(row, "scenario", path, line),
            generated=_motion(row, 0, view, path, line),
            variance=_motion(row, 1, view, path, line),
        )
        for line, row in enumerate(rows, start=2)
        for view in VIEWS
    )


def write_physics_iq_table(path: Path, views: Mapping[str, Sequence[View]]) -> None:
    """Write a table of scenario -> its three views in the order of VIEWS, atomically."""
    header = ["scenario"]
    header += [f"{name}_{view}" for view in VIEWS for pair in _COLUMNS.values() for name in pair]
    with new_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for scenario, its_views in views.items():
            writer.writerow([scenario, *_cells(its_views)])


def _cells(views: Iterable[View]) -> list[str]:
    cells = []
    for view in views:
        for field in _COLUMNS:
            for motion in (view.generated, view.variance):
                value = getattr(motion, field)
                cells.append(json.dumps(value))
    return cells


def _motion(row: Mapping[str, str | None], side: int, view: str, path: Path, line: int) -> Motion:
    def floats(field: str) -> tuple[float, ...]:
        column = f"{_COLUMNS[field][side]}_{view}"
        return _parse(_cell(row, column, path, line), column, path, line)

    return Motion(
        mse=floats("mse"),
        spatiotemporal_iou=floats("spatiotemporal_iou"),
        spatial_iou=floats("spatial_iou")[0],
        weighted_spatial_iou=floats("weighted_spatial_iou")[0],
    )


def _cell(row: Mapping[str, str | None], column: str, path: Path, line: int) -> str:
    text = row.get(column)
    if text is None:
        raise IntegrityError(f"{path}:{line}: no column {column}; not a Physics-IQ table")
    return text


def _parse(text: str, column: str, path: Path, line: int) -> tuple[float, ...]:
    """Read one number or a list of them."""
    try:
        parsed = json.loads(text)
        values = tuple(float(one) for one in (parsed if isinstance(parsed, list) else [parsed]))
    except (ValueError, TypeError):
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise IntegrityError(
            f"{path}:{line}: {column} holds {text[:40]!r}, not a number or a list of numbers"
        )
    return values
