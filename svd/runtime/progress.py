"""Progress of long work: a bar for a terminal, a line now and then for a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")
LINE_EVERY_S = 10.0  # between two progress lines where there is no terminal


def track(items: Iterable[T], *, total: int, description: str, unit: str = "items") -> Iterator[T]:
    """Yield the items while showing how many are done and how long the rest will take.

    Args:
        items: What to iterate over.
        total: Number of items, for the time left.
        description: What is being done, e.g. "annotating clips".
        unit: What one item is called in log lines.
    """
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield from progress.track(items, total=total, description=description)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY_S or done == total:
            last = now
            left = (now - started) / done * max(0, total - done)
            logger.info("%s: %d/%d %s, about %.0f s left", description, done, total, unit, left)
