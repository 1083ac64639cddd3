"""The curves of a run: losses summed between rows, and the files the rows are kept in."""

import contextlib
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from svd.errors import IntegrityError
from svd.training.stage.job import HistoryRow, SpeedRow
from svd.types.base import Record, read_records, write_records

logger = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)

# Upper ends of the noise-level bins; 1 is where the signal drowns, the last bin is open.
SIGMA_EDGES = (0.1, 0.3, 1.0, 3.0, 10.0)


def bin_names(edges: Sequence[float] = SIGMA_EDGES) -> tuple[str, ...]:
    """Return what each noise-level bin is called, from low to high."""
    return (*(f"sigma<{edge:g}" for edge in edges), f"sigma>={edges[-1]:g}")


class LossWindow(Record):
    """Losses summed since the last row; part of every checkpoint, so that rows come out equal."""

    sums: tuple[float, ...] = Field(default=(0.0,) * (len(SIGMA_EDGES) + 1))
    counts: tuple[int, ...] = Field(default=(0,) * (len(SIGMA_EDGES) + 1))

    def add(self, losses: Sequence[float], sigmas: Sequence[float]) -> "LossWindow":
        """Return the window with the examples of one step added, in their global order."""
        sums, counts = list(self.sums), list(self.counts)
        for loss, sigma in zip(losses, sigmas, strict=True):
            place = sum(sigma >= edge for edge in SIGMA_EDGES)
            sums[place] += loss
            counts[place] += 1
        return LossWindow(sums=tuple(sums), counts=tuple(counts))

    @property
    def mean(self) -> float:
        """Mean loss over all examples."""
        return math.fsum(self.sums) / sum(self.counts)

    def by_sigma(self) -> dict[str, float]:
        """Return the mean loss of each noise-level bin that has examples."""
        return {
            name: total / count
            for name, total, count in zip(bin_names(), self.sums, self.counts, strict=True)
            if count
        }


class RowFile:
    """Where rows go as they come. Those that a full disk refuses wait for the next one."""

    def __init__(self, path: Path) -> None:
        """Take the file, which need not be there."""
        self._path = path
        self._waiting: list[str] = []

    def append(self, row: HistoryRow | SpeedRow) -> None:
        """Append one row, and those that wait."""
        self._waiting.append(row.canonical_json() + "\n")
        try:
            self._write("".join(self._waiting))
        except OSError as err:
            logger.warning("row not written", extra={"file": self._path.name, "why": err})
        else:
            self._waiting.clear()

    def _write(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        size = self._path.stat().st_size if self._path.is_file() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self._path, size)  # a torn line would end the reading there
            raise


def forget_rows_after(path: Path, kind: type[HistoryRow] | type[SpeedRow], *, step: int) -> None:
    """Drop the rows after a step: a run that goes on from there writes them again."""
    write_records(path, [row for row in read_rows(path, kind) if row.step <= step])


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """Return the rows so far, up to the first line that a kill has torn."""
    rows: list[R] = []
    if path.is_file():
        with contextlib.suppress(IntegrityError):
            for row in read_records(path, kind):
                rows.append(row)  # noqa: PERF402 (what was read before the torn line is kept)
    return rows
