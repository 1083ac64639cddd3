"""Units of curation work on a pool of workers, with a reason for every unit that fails.

The longest units start first; what a unit makes possible starts when it is done, so no worker
waits for the last of a kind. A unit that hangs or kills its process is tried again; after the last
attempt it is a failure, remembered on a poison list so that a rerun does not walk into it again.
Results depend neither on the number of workers nor on where they are.
"""

import heapq
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from svd.config.engine import EngineConfig
from svd.curation.unit_call import Ended, Returned, UnitCall
from svd.errors import ConfigError
from svd.runtime.guarded import GuardedPool
from svd.runtime.pool import Fault, Lane, Pool
from svd.runtime.progress import Meter
from svd.runtime.spent import WORKERS
from svd.types.base import Record, read_records, write_records

logger = logging.getLogger(__name__)

P = TypeVar("P")
R = TypeVar("R")

_POISONOUS: Final = frozenset({"timeout", "crashed", "out-of-memory"})


class Failure(Record):
    """Why a unit has no result."""

    key: str
    reason: str  # of the MediaError, or "timeout", "crashed", "out-of-memory", "internal-error"
    detail: str


@dataclass(frozen=True, slots=True)
class Unit(Generic[P]):
    """A piece of work that can be done on its own.

    Attributes:
        key: Unique and stable between runs.
        cost: Estimate in any one measure; the largest start first.
        payload: The function's argument; must pickle.
        rank: Units of a higher rank start before all others.
        patience: Times the configured time that it may take; for what cannot be split.
        lane: "gpu" for a worker that has a GPU to itself.
    """

    key: str
    cost: float
    payload: P
    rank: int = 0
    patience: float = 1.0
    lane: Lane = "cpu"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """A unit's end: a result or a failure."""

    key: str
    result: R | None
    failure: Failure | None


def run_units(
    function: Callable[[P], R],
    units: Sequence[Unit[P]],
    config: EngineConfig,
    *,
    description: str,
    unit_name: str = "units",
    poison_list: Path | None = None,
    bounds_memory: bool = True,
    follow: Callable[[Outcome[R]], Iterable[Unit[P]]] | None = None,
) -> Iterator[Outcome[R]]:
    """Yield the outcome of every unit, in order of completion.

    Args:
        function: Importable by name. What it raises as MediaError becomes a failure; so does an
            error that nobody foresaw, but then at least one unit must succeed.
        units: What to do.
        config: Workers, time and memory allowed.
        description: For the progress bar.
        unit_name: For the progress log.
        poison_list: File that remembers units that hung or killed their process; None: no memory.
        bounds_memory: Whether the configured memory bounds the units; off for those that load
            networks, whose libraries alone map more.
        follow: Returns the units that an outcome makes possible.

    Raises:
        SvdError: A unit found that no unit can be done, such as weights that are missing.
        ConfigError: A unit wants a GPU, or Ray, and there is none.
        OSError: The disk is full.
        RuntimeError: Units failed of errors that nobody foresaw, and none succeeded.
    """
    memory_mib = config.memory_mib if bounds_memory else None
    pool: Pool[P, object] = _open_pool(UnitCall(function, memory_mib), config, memory_mib)
    with Meter(description, unit=unit_name) as meter:
        schedule = _Schedule(units, _Poison(poison_list), follow or _nothing, meter)
        try:
            yield from _drive(schedule, pool, config)
        finally:
            pool.close()
    if schedule.first_surprise and not schedule.num_succeeded:
        raise RuntimeError(schedule.first_surprise)


def forget_poison(poison_list: Path) -> int:
    """Let the units on a poison list be tried again; return how many there were."""
    num = len(_Poison(poison_list).failures)
    poison_list.unlink(missing_ok=True)
    return num


def _nothing(_: Outcome[R]) -> Iterable[Unit[P]]:
    return ()


def _open_pool(
    function: "UnitCall[P, R]", config: EngineConfig, memory_mib: int | None
) -> Pool[P, object]:
    if config.kind == "local":
        workers: dict[Lane, int] = {
            "cpu": config.num_workers or os.cpu_count() or 1,
            "gpu": config.num_gpus,
        }
        return GuardedPool(function, workers=workers, memory_mib=memory_mib)
    try:
        from svd.runtime.ray_pool import RayPool, connect
    except ModuleNotFoundError as err:
        raise ConfigError(
            "engine.kind=ray needs Ray, which is not installed: pip install 'svd[cluster]'"
        ) from err
    num_cores = connect(config.address, num_workers=config.num_workers, num_gpus=config.num_gpus)
    workers = {"cpu": config.num_workers or num_cores, "gpu": config.num_gpus}
    return RayPool(function, workers=workers, memory_mib=memory_mib)


def _drive(
    schedule: "_Schedule[P, R]", pool: Pool[P, object], config: EngineConfig
) -> Iterator[Outcome[R]]:
    """Keep the pool busy until nothing is left."""
    at_work: dict[int, _Attempt[P]] = {}
    tickets = itertools.count()
    while schedule.is_waiting or at_work:
        yield from schedule.admit()
        for lane in schedule.lanes:
            if lane == "gpu" and not config.num_gpus:
                raise ConfigError(
                    "engine.num_gpus is 0, but an annotator asks for a GPU: set engine.num_gpus, "
                    "or the annotator's device to cpu"
                )
            while pool.has_room(lane) and (attempt := schedule.next(lane)) is not None:
                ticket = next(tickets)
                at_work[ticket] = attempt
                unit = attempt.unit
                pool.start(
                    ticket,
                    unit.payload,
                    lane=lane,
                    timeout_s=config.timeout_s * max(1.0, unit.patience),
                )
        for done in pool.wait():
            attempt = at_work.pop(done.ticket)
            outcome: Outcome[R] = _outcome_of(attempt.unit, done.result)
            failure = outcome.failure
            if failure is not None and failure.reason in _POISONOUS:
                if attempt.number < config.max_attempts:
                    schedule.put(_Attempt(attempt.unit, attempt.number + 1))
                    continue
                schedule.poison.remember(failure)
            schedule.settle(attempt.unit, outcome)
            yield outcome


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[P]):
    unit: Unit[P]
    number: int = 1


@dataclass(slots=True)
class _Poison:
    """Failures not to be repeated, as they lie on disk."""

    path: Path | None
    failures: dict[str, Failure] = field(init=False)

    def __post_init__(self) -> None:
        self.failures = {}
        if self.path is not None and self.path.is_file():
            self.failures = {item.key: item for item in read_records(self.path, Failure)}

    def remember(self, failure: Failure) -> None:
        self.failures[failure.key] = failure
        if self.path is not None:
            write_records(self.path, [self.failures[key] for key in sorted(self.failures)])


class _Schedule(Generic[P, R]):
    """Units that wait, the most urgent first."""

    def __init__(
        self,
        units: Iterable[Unit[P]],
        poison: _Poison,
        follow: Callable[[Outcome[R]], Iterable[Unit[P]]],
        meter: Meter,
    ) -> None:
        self.poison = poison
        self.num_succeeded = 0
        self.first_surprise = ""
        self._follow = follow
        self._meter = meter
        self._new: deque[Unit[P]] = deque()
        self._waiting: dict[Lane, list[tuple[int, float, int, _Attempt[P]]]] = {}
        self._numbers = itertools.count()  # equally urgent units start in the order they came
        self._arrive(units)

    @property
    def lanes(self) -> list[Lane]:
        """Lanes for which something waits."""
        return [lane for lane, attempts in self._waiting.items() if attempts]

    @property
    def is_waiting(self) -> bool:
        return bool(self._new or self.lanes)

    def admit(self) -> Iterator[Outcome[R]]:
        """Let new units in; yield the outcomes of those that the poison list forbids."""
        while self._new:
            unit = self._new.popleft()
            failure = self.poison.failures.get(unit.key)
            if failure is None:
                self.put(_Attempt(unit))
            else:
                outcome: Outcome[R] = Outcome(unit.key, None, failure)
                self.settle(unit, outcome)
                yield outcome

    def put(self, attempt: _Attempt[P]) -> None:
        unit = attempt.unit
        entry = (-unit.rank, -unit.cost, next(self._numbers), attempt)
        heapq.heappush(self._waiting.setdefault(unit.lane, []), entry)

    def next(self, lane: Lane) -> _Attempt[P] | None:
        waiting = self._waiting.get(lane)
        return heapq.heappop(waiting)[-1] if waiting else None

    def settle(self, unit: Unit[P], outcome: Outcome[R]) -> None:
        """Take note of an outcome, and of the units that it makes possible."""
        self.num_succeeded += outcome.failure is None
        if outcome.failure is not None and outcome.failure.reason == "internal-error":
            self.first_surprise = self.first_surprise or outcome.failure.detail
            logger.error("unit failed", extra={"key": unit.key, "error": outcome.failure.detail})
        self._arrive(self._follow(outcome))
        self._meter.advance(unit.cost)

    def _arrive(self, units: Iterable[Unit[P]]) -> None:
        for unit in units:
            self._new.append(unit)
            self._meter.expect(unit.cost)


def _outcome_of(unit: Unit[P], result: object) -> Outcome[R]:
    key = unit.key
    match result:
        case Fault(reason, detail):
            return Outcome(key, None, Failure(key=key, reason=reason, detail=detail))
        case Ended(inner, cpu_s, wall_s):
            WORKERS.cpu_s += cpu_s
            WORKERS.gpu_s += wall_s if unit.lane == "gpu" else 0.0
            if isinstance(inner, Returned):
                return Outcome(key, inner.value, None)
            failure = Failure(key=key, reason=inner.reason, detail=inner.detail)
            return Outcome(key, None, failure)
        case _:
            raise TypeError(f"{key}: a pool gave {type(result).__name__}")
