"""What a run has spent over all its attempts, the killed ones too: seconds times devices.

Each attempt keeps a file of its own in the run's folder, written anew every few seconds, so a kill
loses no more than that. A device is a GPU, or a rank's share of a processor where there is none.
"""

import logging
import os
import time
from pathlib import Path
from typing import Final

from pydantic import Field

from svd.types.base import Record, read_records, write_records
from svd.types.budget import Budget

logger = logging.getLogger(__name__)
_KEEP_EVERY_S: Final = 5.0


class AttemptCost(Record):
    """spent/<time>-<process>.json: one attempt's share."""

    num_devices: int = Field(gt=0)
    wall_s: float = Field(ge=0)  # from the start of its ranks to its last sign of life

    @property
    def device_s(self) -> float:
        """Seconds times devices."""
        return self.num_devices * self.wall_s


def spent_s(folder: Path) -> float:
    """Return device-seconds of all attempts that left a file in a folder."""
    files = sorted(folder.glob("*.json"))
    return sum(cost.device_s for file in files for cost in read_records(file, AttemptCost))


def budget_sentence(stage: str, budget: Budget, device_s: float) -> str:
    """Return what is said of a run that has spent its budget."""
    cost = device_s / 3600 * budget.price_per_device_hour
    key = f"{stage.partition('@')[0]}.compute.budget"
    return (
        f"{stage}: the budget is spent: {cost:.4g} of {key}={budget.amount:g} "
        f"({device_s / 3600:.4g} device-hours at {budget.price_per_device_hour:g}); "
        "raise it and run the stage again to go on"
    )


class Ledger:
    """Counts the present attempt on top of those before; rank 0 keeps it, and stops by it."""

    def __init__(
        self, folder: Path, *, num_devices: int, budget: Budget | None, keeps: bool
    ) -> None:
        """Begin an attempt.

        Args:
            folder: Where attempts leave their files.
            num_devices: Ranks, each of which has a device.
            budget: None is no bound.
            keeps: Whether this rank writes the file and watches the budget; one does.
        """
        self._file = folder / f"{time.time_ns()}-{os.getpid()}.json"
        self._num_devices = num_devices
        self._budget = budget
        self._keeps = keeps
        self._before_s = spent_s(folder) if keeps else 0.0
        self._started = time.monotonic()
        self._kept_at = 0.0
        self.keep(now=True)

    @property
    def spent_s(self) -> float:
        """Device-seconds of all attempts, this one included."""
        return self._before_s + self._num_devices * (time.monotonic() - self._started)

    @property
    def is_spent(self) -> bool:
        """Whether the budget is used up; only the keeper can tell."""
        return self._keeps and self._budget is not None and self.spent_s >= self._budget.device_s

    def keep(self, *, now: bool = False) -> None:
        """Write what was spent so far, if the last time was long enough ago."""
        wall_s = time.monotonic() - self._started
        if not self._keeps or (wall_s - self._kept_at < _KEEP_EVERY_S and not now):
            return
        self._kept_at = wall_s
        cost = AttemptCost(num_devices=self._num_devices, wall_s=round(wall_s, 3))
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_records(self._file, [cost])
        except OSError as err:  # the next one says it all again
            logger.warning("cost not written", extra={"file": self._file.name, "why": err})
