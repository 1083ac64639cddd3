"""A pool of processes that outlives its items: one that hangs, crashes or eats memory is a fault.

The standard pools wait for ever on a worker that hangs and break when one dies. Here every item
has its time; a process that exceeds it is killed and replaced, and the item yields a `Fault`.
"""

import multiprocessing as mp
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from svd.runtime.pool import Done, Fault, Lane

T = TypeVar("T")
R = TypeVar("R")

_MIB = 1 << 20
_START_TIMEOUT_S = 300.0  # for a process to come up, on a machine that is busy with other things
_KILL_TIMEOUT_S = 10.0  # a process that waits for a dead file server cannot be killed; leave it


class Begun(NamedTuple):
    """A process has taken up its item."""


class _Worker(Generic[T, R]):
    """One process and the item it is at."""

    def __init__(
        self, function: Callable[[T], R], memory_mib: int | None, environment: Mapping[str, str]
    ) -> None:
        # A plain fork would copy locks that our threads may hold; a server that forks has none,
        # and once it has imported what the function needs, a new process costs milliseconds.
        context = mp.get_context("forkserver")
        unwrapped = getattr(function, "__wrapped__", function)  # as functools.wraps has it
        context.set_forkserver_preload([unwrapped.__module__])
        self.connection, theirs = context.Pipe()
        their_lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(
            target=_serve,
            args=(theirs, their_lifeline, function, memory_mib, {**os.environ, **environment}),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        their_lifeline.close()
        self.is_busy = False
        self.ticket = -1
        self.deadline = float("inf")
        self._timeout_s = 0.0

    def give(self, ticket: int, item: T, timeout_s: float) -> None:
        """Hand over an item; its time begins when the process says that it has begun."""
        self.is_busy, self.ticket, self._timeout_s = True, ticket, timeout_s
        self.deadline = time.monotonic() + _START_TIMEOUT_S
        with suppress(BrokenPipeError):  # it died meanwhile, which `take` will find
            self.connection.send(item)

    def take(self) -> R | Fault | Begun:
        """Return the result that has arrived, why none will, or that its time runs from now.

        Raises:
            Exception: Whatever the function raised.
        """
        if not self.connection.poll():
            return Fault("timeout", f"not finished within {self._timeout_s:g} s")
        try:
            news, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            return Fault("crashed", f"its process ended with {how}")
        if news == "begun":
            self.deadline = time.monotonic() + self._timeout_s
            return Begun()
        self.is_busy, self.deadline = False, float("inf")
        if news == "raised":
            raise value
        result: R = value
        return result

    def retire(self) -> None:
        """End the process, whatever it is doing; harmless if it has ended."""
        self.is_busy, self.deadline = False, float("inf")
        self._process.kill()
        self._process.join(_KILL_TIMEOUT_S)
        self.connection.close()
        self._lifeline.close()


class GuardedPool(Generic[T, R]):
    """Processes of this machine; one that exceeds its time is killed and replaced."""

    def __init__(
        self, function: Callable[[T], R], *, workers: Mapping[Lane, int], memory_mib: int | None
    ) -> None:
        """Prepare; processes start when there is work for them.

        Args:
            function: Of a module's top level, as it travels by name.
            workers: Processes, at most, per lane. Those of the lane "gpu" see one GPU each.
            memory_mib: Address space a process may add to what it has when it starts; beyond it,
                allocations fail in that process. None: no bound.
        """
        self._function = function
        self._memory_mib = memory_mib
        self._slots: list[_Slot[T, R]] = [
            _Slot(lane, number) for lane, num in workers.items() for number in range(num)
        ]

    def has_room(self, lane: Lane) -> bool:
        """See `Pool`."""
        return self._free_slot(lane) is not None

    def start(self, ticket: int, item: T, *, lane: Lane, timeout_s: float) -> None:
        """See `Pool`.

        Raises:
            ValueError: There is no room.
        """
        slot = self._free_slot(lane)
        if slot is None:
            raise ValueError(f"no worker of lane {lane} is free")
        if slot.worker is None:
            slot.worker = _Worker(self._function, self._memory_mib, slot.environment)
        slot.worker.give(ticket, item, timeout_s)

    def wait(self) -> list[Done[R]]:
        """See `Pool`."""
        finished: list[Done[R]] = []
        while not finished and any(slot.is_busy for slot in self._slots):
            for slot, worker in _due(self._slots):
                ticket, outcome = worker.ticket, worker.take()
                if isinstance(outcome, Begun):
                    continue
                if isinstance(outcome, Fault):
                    worker.retire()
                    slot.worker = None
                finished.append(Done(ticket, outcome))
        return finished

    def close(self) -> None:
        """See `Pool`."""
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.retire()
                slot.worker = None

    def _free_slot(self, lane: Lane) -> "_Slot[T, R] | None":
        free = [slot for slot in self._slots if slot.lane == lane and not slot.is_busy]
        warm = [slot for slot in free if slot.worker is not None]
        return next(iter([*warm, *free]), None)


@dataclass(slots=True)
class _Slot(Generic[T, R]):
    """A place for one process."""

    lane: Lane
    number: int  # within its lane
    worker: _Worker[T, R] | None = None

    @property
    def is_busy(self) -> bool:
        return self.worker is not None and self.worker.is_busy

    @property
    def environment(self) -> dict[str, str]:
        """What its process sees beside our own environment."""
        return {"CUDA_VISIBLE_DEVICES": _visible_gpu(self.number)} if self.lane == "gpu" else {}


def _visible_gpu(number: int) -> str:
    """Return the name of the n-th GPU that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name for name in visible.split(",") if name]
    return names[number] if number < len(names) else str(number)


def _due(slots: "Sequence[_Slot[T, R]]") -> "list[tuple[_Slot[T, R], _Worker[T, R]]]":
    """Wait until workers have answered or run out of time; return them with their slots."""
    busy = {
        slot.worker.connection: (slot, slot.worker)
        for slot in slots
        if slot.worker is not None and slot.is_busy
    }
    nearest = min(worker.deadline for _, worker in busy.values())
    answered = set(wait(list(busy), timeout=max(0.0, nearest - time.monotonic())))
    now = time.monotonic()
    return [pair for key, pair in busy.items() if key in answered or pair[1].deadline <= now]


def _serve(
    connection: Connection,
    lifeline: Connection,
    function: Callable[[T], R],
    memory_mib: int | None,
    environment: dict[str, str],
) -> None:
    """Answer one item after the other until the parent is gone."""
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    os.environ.clear()  # the server that forked us may be older than the parent's environment
    os.environ.update(environment)
    if memory_mib is not None:
        limit_memory(memory_mib)
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


def limit_memory(memory_mib: int) -> None:
    """Let this process map so much more than it has mapped already; beyond, allocations fail."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return  # only Linux tells a process how much it has mapped
    pages = int(statm.read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + memory_mib * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
