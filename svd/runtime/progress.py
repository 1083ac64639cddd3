"""Progress of long work: a bar for a terminal, a line now and then for a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)
T = TypeVar("T")
LINE_EVERY_S = 10.0  # between two progress lines where there is no terminal


class Meter(AbstractContextManager["Meter"]):
    """Shows how many items are done and how long the rest will take.

    Items may differ in cost, and more may come to light while work goes on.
    """

    def __init__(self, description: str, *, unit: str) -> None:
        """Prepare.

        Args:
            description: What is being done, e.g. "annotating clips".
            unit: What one item is called, in the plural.
        """
        self._description = description
        self._unit = unit
        self._note = ""
        self._expected = self._done = 0
        self._cost_expected = self._cost_done = 0.0
        self._started = self._last_line = time.monotonic()
        self._bar = _bar() if sys.stderr.isatty() else None
        if self._bar is not None:
            self._task = self._bar.add_task(description, total=0.0, counts="")

    def __enter__(self) -> Self:
        self._started = self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, cost: float = 1.0, *, num: int = 1) -> None:
        """Count items that are to be done; the cost is of all of them together."""
        self._expected += num
        self._cost_expected += cost
        self._update_bar()

    def note(self, text: str) -> None:
        """Show a text beside the counts from now on, e.g. the loss."""
        self._note = text

    def advance(self, cost: float = 1.0) -> None:
        """Count an item that is done."""
        self._done += 1
        self._cost_done += cost
        self._update_bar()
        now = time.monotonic()
        is_last = self._done >= self._expected
        if self._bar is None and (is_last or now - self._last_line >= LINE_EVERY_S):
            self._last_line = now
            left = max(0.0, self._cost_expected - self._cost_done)
            logger.info(
                "%s: %d/%d %s (%.0f %%), about %.0f s left%s",
                self._description,
                self._done,
                self._expected,
                self._unit,
                100 * self._cost_done / max(self._cost_expected, 1e-9),
                (now - self._started) / max(self._cost_done, 1e-9) * left,
                self._note and f", {self._note}",
            )

    def _update_bar(self) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task,
                total=self._cost_expected,
                completed=self._cost_done,
                counts=f"{self._done}/{self._expected} {self._unit} {self._note}".rstrip(),
            )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def track(
    items: Iterable[T],
    *,
    total: int,
    description: str,
    unit: str = "items",
    note: Callable[[], str] = str,
) -> Iterator[T]:
    """Yield the items while showing how many are done and how long the rest will take.

    Args:
        items: What to iterate over.
        total: Number of items, for the time left.
        description: What is being done, e.g. "annotating clips".
        unit: What one item is called, in the plural.
        note: Returns what to show beside the counts at the moment; by default nothing.
    """
    with Meter(description, unit=unit) as meter:
        meter.expect(float(total), num=total)
        for item in items:
            yield item
            meter.note(note())
            meter.advance()
