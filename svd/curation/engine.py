"""Units of curation work on a pool of processes, with a reason for every unit that fails.

The longest units start first. A unit that hangs or kills its process is tried again; after the
last attempt it is a failure, remembered on a poison list so that a rerun does not walk into it
again. Results do not depend on the number of workers.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from svd.config.curation import WorkersConfig
from svd.errors import MediaError
from svd.runtime.guarded import Fault, run_guarded
from svd.runtime.progress import track
from svd.types.base import Record, read_records, write_records

P = TypeVar("P")
R = TypeVar("R")


class Failure(Record):
    """Why a unit has no result."""

    key: str
    reason: str  # of the MediaError, or "timeout", "crashed", "out-of-memory"
    detail: str


@dataclass(frozen=True, slots=True)
class Unit(Generic[P]):
    """A piece of work that can be done on its own.

    Attributes:
        key: Unique and stable between runs.
        cost: Estimate in any one measure; the largest start first.
        payload: The function's argument; must pickle.
    """

    key: str
    cost: float
    payload: P


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """A unit's end: a result or a failure."""

    key: str
    result: R | None
    failure: Failure | None


def run_units(
    function: Callable[[P], R],
    units: Sequence[Unit[P]],
    config: WorkersConfig,
    *,
    description: str,
    unit_name: str = "units",
    poison_list: Path | None = None,
) -> Iterator[Outcome[R]]:
    """Yield the outcome of every unit, in order of completion.

    Args:
        function: Importable by name; what it raises as MediaError becomes a failure.
        units: What to do.
        config: Processes, time and memory allowed.
        description: For the progress bar.
        unit_name: For the progress log.
        poison_list: File that remembers units that hung or killed their process; None: no memory.

    Raises:
        Exception: A unit raised something else, a programming error; the run stops.
    """
    outcomes = _outcomes(function, units, config, poison_list)
    yield from track(outcomes, total=len(units), description=description, unit=unit_name)


def forget_poison(poison_list: Path) -> int:
    """Let the units on a poison list be tried again; return how many there were."""
    num = len(_read_poison(poison_list))
    poison_list.unlink(missing_ok=True)
    return num


def _outcomes(
    function: Callable[[P], R],
    units: Sequence[Unit[P]],
    config: WorkersConfig,
    poison_list: Path | None,
) -> Iterator[Outcome[R]]:
    poisoned = _read_poison(poison_list)
    for unit in units:
        if unit.key in poisoned:
            yield Outcome(unit.key, None, poisoned[unit.key])
    left = [unit for unit in units if unit.key not in poisoned]
    for attempt in range(1, config.max_attempts + 1):
        again: list[Unit[P]] = []
        for unit, outcome in _attempt(function, left, config):
            if outcome.failure is None or outcome.failure.reason not in _POISONOUS:
                yield outcome
            elif attempt < config.max_attempts:
                again.append(unit)
            else:
                poisoned[unit.key] = outcome.failure
                if poison_list is not None:
                    write_records(poison_list, [poisoned[key] for key in sorted(poisoned)])
                yield outcome
        left = again


_POISONOUS = frozenset({"timeout", "crashed", "out-of-memory"})


def _attempt(
    function: Callable[[P], R], units: Sequence[Unit[P]], config: WorkersConfig
) -> Iterator[tuple[Unit[P], Outcome[R]]]:
    ordered = sorted(units, key=lambda unit: (-unit.cost, unit.key))
    unlimited = sys.maxsize >> 21  # MiB
    for done in run_guarded(
        _Guarded(function, config.memory_mb),
        [unit.payload for unit in ordered],
        workers=config.num,
        timeout_s=config.timeout_s,
        memory_mib=unlimited if config.memory_mb is None else config.memory_mb,
    ):
        unit = ordered[done.item_index]
        match done.result:
            case Fault(reason, detail) | _Failed(reason, detail):
                failure = Failure(key=unit.key, reason=reason, detail=detail)
                yield unit, Outcome(unit.key, None, failure)
            case _Result(value):
                yield unit, Outcome(unit.key, value, None)


def _read_poison(path: Path | None) -> dict[str, Failure]:
    if path is None or not path.is_file():
        return {}
    return {failure.key: failure for failure in read_records(path, Failure)}


@dataclass(frozen=True, slots=True)
class _Failed:
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Result(Generic[R]):
    value: R


@dataclass(frozen=True)
class _Guarded(Generic[P, R]):
    """Calls a unit's function in a worker: one thread, and expected errors become values."""

    function: Callable[[P], R]
    memory_mb: int | None

    @property
    def __wrapped__(self) -> Callable[[P], R]:
        """The function inside, whose module the pool loads once for all its processes."""
        return self.function

    def __call__(self, payload: P) -> "_Result[R] | _Failed":
        import cv2

        cv2.setNumThreads(1)  # more would only fight the other workers for the same cores
        try:
            return _Result(self.function(payload))
        except MediaError as err:
            return _Failed(err.reason, err.detail)
        except MemoryError:
            return _Failed("out-of-memory", f"more than {self.memory_mb} MiB needed")
