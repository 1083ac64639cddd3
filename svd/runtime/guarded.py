"""A pool of processes that outlives its tasks: one that hangs, crashes or eats memory is a fault.

The standard pools wait for ever on a worker that hangs and break when one dies. Here every task
has its time; a process that exceeds it is killed and replaced, and the task yields a `Fault`.
"""

import multiprocessing as mp
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MIB = 1 << 20
_START_TIMEOUT_S = 300.0  # for a process to come up, on a machine that is busy with other things


class Fault(NamedTuple):
    """Why a task gave no result."""

    reason: Literal["timeout", "crashed"]
    detail: str  # a sentence for a person


class Begun(NamedTuple):
    """A process has taken up its task."""


class Done(NamedTuple, Generic[R]):
    """A finished task."""

    item_index: int
    result: R | Fault


class _Worker(Generic[T, R]):
    """One process and the task it is at."""

    def __init__(self, function: Callable[[T], R], memory_mib: int) -> None:
        # A plain fork would copy locks that our threads may hold; a server that forks has none,
        # and once it has imported what the function needs, a new process costs milliseconds.
        context = mp.get_context("forkserver")
        unwrapped = getattr(function, "__wrapped__", function)  # as functools.wraps has it
        context.set_forkserver_preload([unwrapped.__module__])
        self.connection, theirs = context.Pipe()
        their_lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(
            target=_serve,
            args=(theirs, their_lifeline, function, memory_mib, dict(os.environ)),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        their_lifeline.close()
        self.index: int | None = None
        self.deadline = float("inf")

    def give(self, index: int, item: T) -> None:
        """Hand over an item; its time begins when the process says that it has begun."""
        self.index = index
        self.deadline = time.monotonic() + _START_TIMEOUT_S
        with suppress(BrokenPipeError):  # it died meanwhile, which `take` will find
            self.connection.send(item)

    def take(self, timeout_s: float) -> R | Fault | Begun:
        """Return the result that has arrived, why none will, or that its time runs from now.

        Raises:
            Exception: Whatever the function raised.
        """
        if not self.connection.poll():
            return Fault("timeout", f"not finished within {timeout_s:g} s")
        try:
            news, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            return Fault("crashed", f"its process ended with {how}")
        if news == "begun":
            self.deadline = time.monotonic() + timeout_s
            return Begun()
        self.index, self.deadline = None, float("inf")
        if news == "raised":
            raise value
        result: R = value
        return result

    def retire(self) -> None:
        """End the process, whatever it is doing; harmless if it has ended."""
        self.index, self.deadline = None, float("inf")
        self._process.kill()
        self._process.join()
        self.connection.close()
        self._lifeline.close()


def run_guarded(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int,
    timeout_s: float,
    memory_mib: int,
) -> Iterator[Done[R]]:
    """Yield the result of a function for every item, in the order in which they finish.

    Args:
        function: Of a module's top level, as it travels by name.
        items: What to call it with; they and the results are pickled.
        workers: Processes, at most.
        timeout_s: For one item, from when its process begins with it.
        memory_mib: Address space a process may add to what it has when it starts; beyond it,
            allocations fail in that process.

    Raises:
        Exception: The first one the function raises ends the run; expected failures are results.
    """
    waiting = iter(enumerate(items))
    pool: list[_Worker[T, R]] = []
    try:
        for _ in range(min(workers, len(items))):
            pool.append(_Worker(function, memory_mib))
            pool[-1].give(*next(waiting))
        while any(worker.index is not None for worker in pool):
            for position, worker in _due(pool):
                index, outcome = worker.index, worker.take(timeout_s)
                if index is None or isinstance(outcome, Begun):
                    continue
                following = next(waiting, None)
                if isinstance(outcome, Fault):
                    worker.retire()
                    if following is not None:
                        pool[position] = _Worker(function, memory_mib)
                if following is not None:
                    pool[position].give(*following)
                yield Done(index, outcome)
    finally:
        for worker in pool:
            worker.retire()


def _due(pool: "list[_Worker[T, R]]") -> "list[tuple[int, _Worker[T, R]]]":
    """Wait until workers have answered or run out of time; return them with their positions."""
    busy = {w.connection: (i, w) for i, w in enumerate(pool) if w.index is not None}
    nearest = min(worker.deadline for _, worker in busy.values())
    answered = set(wait(list(busy), timeout=max(0.0, nearest - time.monotonic())))
    now = time.monotonic()
    return [pair for key, pair in busy.items() if key in answered or pair[1].deadline <= now]


def _serve(
    connection: Connection,
    lifeline: Connection,
    function: Callable[[T], R],
    memory_mib: int,
    environment: dict[str, str],
) -> None:
    """Answer one item after the other until the parent is gone."""
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    os.environ.clear()  # the server that forked us may be older than the parent's environment
    os.environ.update(environment)
    _limit_memory(memory_mib)
    while True:
        try:
            item: T = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        connection.send(("begun", None))
        try:
            answer: tuple[str, object] = ("done", function(item))
        except Exception as err:  # noqa: BLE001 - raised again in the parent
            answer = ("raised", err)
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


def _end_with_parent(lifeline: Connection) -> None:
    """End this process, whatever it is doing, when its parent was killed.

    Nothing is ever sent: the wait ends when the parent's end of the pipe is closed.
    """
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


def _limit_memory(memory_mib: int) -> None:
    """Let this process map so much more than it has mapped already."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return  # only Linux tells a process how much it has mapped
    pages = int(statm.read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + memory_mib * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
