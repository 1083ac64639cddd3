"""Units of curation work on a pool of local processes that may hang, die or run out of memory.

The longest units start first. A worker that exceeds its time or dies is replaced; its unit is
tried again, and after the last attempt it is a failure with a reason, remembered on a poison list
so that a rerun does not walk into it again. Results do not depend on the number of workers.
"""

import multiprocessing
import os
import resource
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

from svd.config.curation import WorkersConfig
from svd.errors import MediaError
from svd.runtime.progress import track
from svd.types.base import Record, read_records, write_records

P = TypeVar("P")
R = TypeVar("R")

# Each worker computes with one thread; more would only fight over the same cores.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


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
        cost: Estimate in any one unit; the largest start first.
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


class WorkerBugError(RuntimeError):
    """A unit raised an error nobody foresaw; its text is the worker's traceback."""


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
        poison_list: File that remembers units that hung or killed their worker; None: no memory.

    Raises:
        WorkerBugError: A unit raised something else; the run stops.
    """
    poisoned = {failure.key: failure for failure in _read_poison(poison_list)}
    runnable = [unit for unit in units if unit.key not in poisoned]
    known = [poisoned[unit.key] for unit in units if unit.key in poisoned]
    ordered = sorted(runnable, key=lambda unit: (-unit.cost, unit.key))

    def outcomes() -> Iterator[Outcome[R]]:
        for failure in known:
            yield Outcome(key=failure.key, result=None, failure=failure)
        if ordered:
            pool = _Pool(function, config, min(config.num, len(ordered)))
            for outcome in pool.run(ordered):
                if outcome.failure is not None and outcome.failure.reason in _POISONOUS:
                    poisoned[outcome.key] = outcome.failure
                    if poison_list is not None:
                        write_records(poison_list, [poisoned[key] for key in sorted(poisoned)])
                yield outcome

    yield from track(outcomes(), total=len(units), description=description, unit=unit_name)


_POISONOUS = frozenset({"timeout", "crashed", "out-of-memory"})


def _read_poison(path: Path | None) -> list[Failure]:
    return [] if path is None or not path.is_file() else list(read_records(path, Failure))


@dataclass(slots=True)
class _Worker(Generic[P]):
    process: BaseProcess
    connection: Connection
    unit: Unit[P] | None = None
    deadline: float = 0.0


class _Pool(Generic[P, R]):
    def __init__(self, function: Callable[[P], R], config: WorkersConfig, num: int) -> None:
        self._function = function
        self._config = config
        self._num = num
        self._attempts: dict[str, int] = {}
        # Spawned, not forked: a fork would copy threads' locks of OpenCV and ONNX in any state.
        self._context = multiprocessing.get_context("spawn")

    def run(self, units: Sequence[Unit[P]]) -> Iterator[Outcome[R]]:
        queue = deque(units)
        workers = [self._start() for _ in range(self._num)]
        try:
            while queue or any(worker.unit for worker in workers):
                for worker in workers:
                    if worker.unit is None and queue:
                        self._give(worker, queue.popleft())
                for index, outcome in self._collect(workers, queue):
                    if not workers[index].process.is_alive():
                        workers[index] = self._start()
                    if outcome is not None:
                        yield outcome
        finally:
            for worker in workers:
                _stop(worker)

    def _start(self) -> _Worker[P]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._function, self._config.memory_mb), daemon=True
        )
        with _environment(_ONE_THREAD):
            process.start()
        theirs.close()
        return _Worker(process=process, connection=ours)

    def _give(self, worker: _Worker[P], unit: Unit[P]) -> None:
        self._attempts[unit.key] = self._attempts.get(unit.key, 0) + 1
        worker.unit = unit
        worker.deadline = time.monotonic() + self._config.timeout_s
        worker.connection.send(unit.payload)

    def _collect(
        self, workers: list[_Worker[P]], queue: deque[Unit[P]]
    ) -> Iterator[tuple[int, Outcome[R] | None]]:
        """Yield (worker's index, outcome or None if the unit goes back to the queue)."""
        busy = [worker for worker in workers if worker.unit is not None]
        nearest = min(worker.deadline for worker in busy)
        left = max(0.0, nearest - time.monotonic())
        ready = wait([worker.connection for worker in busy], timeout=left)
        for index, worker in enumerate(workers):
            unit = worker.unit
            if unit is None:
                continue
            if worker.connection in ready:
                yield index, self._receive(worker, unit, queue)
            elif time.monotonic() >= worker.deadline:
                _kill(worker)
                detail = f"no result within {self._config.timeout_s:g} s; the worker was killed"
                yield index, self._give_up(worker, unit, queue, "timeout", detail)

    def _receive(
        self, worker: _Worker[P], unit: Unit[P], queue: deque[Unit[P]]
    ) -> Outcome[R] | None:
        try:
            kind, first, second = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            detail = f"the worker ended with exit code {worker.process.exitcode}"
            return self._give_up(worker, unit, queue, "crashed", detail)
        worker.unit = None
        if kind == "bug":
            raise WorkerBugError(f"unit {unit.key}:\n{first}")
        if kind == "failure":
            return Outcome(unit.key, None, Failure(key=unit.key, reason=first, detail=second))
        return Outcome(key=unit.key, result=first, failure=None)

    def _give_up(
        self, worker: _Worker[P], unit: Unit[P], queue: deque[Unit[P]], reason: str, detail: str
    ) -> Outcome[R] | None:
        worker.unit = None
        if self._attempts[unit.key] < self._config.max_attempts:
            queue.append(unit)
            return None
        return Outcome(unit.key, None, Failure(key=unit.key, reason=reason, detail=detail))


def _work(connection: Connection, function: Callable[[P], object], memory_mb: int | None) -> None:
    """Do units until the parent closes the connection."""
    import cv2

    cv2.setNumThreads(1)
    if memory_mb is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    while True:
        try:
            payload = connection.recv()
        except EOFError:
            return
        try:
            message: tuple[str, object, object] = ("result", function(payload), None)
        except MediaError as err:
            message = ("failure", err.reason, err.detail)
        except MemoryError:
            message = ("failure", "out-of-memory", f"more than {memory_mb} MiB needed")
        except Exception:  # noqa: BLE001  # told to the parent, which stops the run with it
            message = ("bug", traceback.format_exc(), None)
        connection.send(message)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for processes started inside; numpy reads them when it is imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _kill(worker: _Worker[P]) -> None:
    worker.process.kill()
    worker.process.join()


def _stop(worker: _Worker[P]) -> None:
    worker.connection.close()
    worker.process.join(timeout=1.0)
    if worker.process.is_alive():
        _kill(worker)
