"""A pool whose workers are actors of a Ray cluster; the only file that imports Ray.

An actor is one process that does one item at a time, as a worker of `GuardedPool` does: its
networks stay loaded, its memory is bounded alike, and one that hangs is killed and replaced.
Items and results are small records; pictures travel through the shared file system.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported

import ray
import ray.exceptions

from svd.errors import ConfigError
from svd.runtime.guarded import limit_memory
from svd.runtime.pool import Done, Fault, Lane

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_NEEDS: Mapping[Lane, dict[str, float]] = {
    "cpu": {"num_cpus": 1, "num_gpus": 0},
    "gpu": {"num_cpus": 0, "num_gpus": 1},
}
_SAY_WAITING_S = 60.0  # between two lines about a cluster that has no place for us


def connect(address: str, *, num_workers: int | None, num_gpus: int) -> int:
    """Join a cluster, or start one on this machine; return its number of cores.

    The connection lasts as long as this process.

    Args:
        address: As ray.init takes it; "local" starts a cluster.
        num_workers: Cores that a started cluster offers; None: as many as there are.
        num_gpus: GPUs that a started cluster offers.

    Raises:
        ConfigError: There is no cluster at the address.
    """
    if not ray.is_initialized():
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address == "local":
            options |= {
                "num_cpus": num_workers,
                "num_gpus": num_gpus,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",  # nothing outside this machine is to reach it
            }
        try:
            ray.init(address, **options)
        except (ConnectionError, ValueError, RuntimeError) as err:
            raise ConfigError(
                f"engine.address={address}: no Ray cluster answers there ({_first_line(err)})"
            ) from err
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("CPU", 1))


class _Host:
    """What an actor is: the pool's function in a process of its own."""

    def __init__(self, function: Callable[[Any], Any], memory_mib: int | None) -> None:
        self._function = function
        if memory_mib is not None:
            limit_memory(memory_mib)

    def begin(self) -> None:
        """Answer when the process is up and free: the next item's time begins."""

    def do(self, item: Any) -> Any:
        """Call the function."""
        return self._function(item)


class _Work:
    """An actor and the item it is at."""

    def __init__(self, actor: Any, lane: Lane) -> None:
        self.actor = actor
        self.lane: Lane = lane
        self.ticket = -1
        self.begun: Any = None  # reference to the answer of `begin`; None once it has come
        self.result: Any = None  # reference to the result; None: idle
        self.timeout_s = 0.0
        self.deadline = float("inf")

    def give(self, ticket: int, item: object, timeout_s: float) -> None:
        self.ticket, self.timeout_s, self.deadline = ticket, timeout_s, float("inf")
        self.begun = self.actor.begin.remote()
        self.result = self.actor.do.remote(item)


class RayPool(Generic[T, R]):
    """Actors of a cluster to which this process is connected; see `Pool`."""

    def __init__(
        self, function: Callable[[T], R], *, workers: Mapping[Lane, int], memory_mib: int | None
    ) -> None:
        """Prepare; actors start when there is work for them.

        Args:
            function: Importable on every node.
            workers: Actors, at most, per lane; each takes one core or one GPU.
            memory_mib: As in `GuardedPool`.
        """
        self._function = function
        self._memory_mib = memory_mib
        self._workers = dict(workers)
        self._actors: list[_Work] = []
        self._host = ray.remote(_Host)
        self._last_said = time.monotonic()

    def has_room(self, lane: Lane) -> bool:
        """See `Pool`."""
        mine = [work for work in self._actors if work.lane == lane]
        return len(mine) < self._workers.get(lane, 0) or any(w.result is None for w in mine)

    def start(self, ticket: int, item: T, *, lane: Lane, timeout_s: float) -> None:
        """See `Pool`."""
        idle = [work for work in self._actors if work.lane == lane and work.result is None]
        if not idle:
            options = self._host.options(max_restarts=0, max_task_retries=0, **_NEEDS[lane])
            idle.append(_Work(options.remote(self._function, self._memory_mib), lane))
            self._actors += idle
        idle[0].give(ticket, item, timeout_s)

    def wait(self) -> list[Done[R]]:
        """See `Pool`."""
        finished: list[Done[R]] = []
        while not finished and any(work.result is not None for work in self._actors):
            busy = [work for work in self._actors if work.result is not None]
            self._say_if_waiting(busy)
            answered = self._answered(busy)
            for work in busy:
                if work.begun is not None and work.begun in answered:
                    # The answer may be that the actor is dead; then `result` says so too.
                    work.begun, work.deadline = None, time.monotonic() + work.timeout_s
                if work.result in answered:
                    finished.append(Done(work.ticket, self._collect(work)))
                elif work.deadline <= time.monotonic():
                    detail = f"not finished within {work.timeout_s:g} s"
                    self._drop(work)
                    finished.append(Done(work.ticket, Fault("timeout", detail)))
        return finished

    def close(self) -> None:
        """See `Pool`."""
        for work in list(self._actors):
            self._drop(work)

    def _answered(self, busy: list[_Work]) -> set[Any]:
        nearest = min(*(work.deadline for work in busy), time.monotonic() + _SAY_WAITING_S)
        references = [work.result for work in busy]
        references += [work.begun for work in busy if work.begun is not None]
        left_s = max(0.0, nearest - time.monotonic())
        answered, _ = ray.wait(references, num_returns=1, timeout=left_s)
        more, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return {*answered, *more}

    def _collect(self, work: _Work) -> R | Fault:
        try:
            result: R = ray.get(work.result)
        except ray.exceptions.RayTaskError as err:
            raise err.cause from None
        except ray.exceptions.RayError as err:  # its process, its node or its object is gone
            self._drop(work)
            return Fault("crashed", f"its actor died: {_first_line(err)}")
        work.result = None
        work.deadline = float("inf")
        return result

    def _drop(self, work: _Work) -> None:
        ray.kill(work.actor, no_restart=True)
        self._actors.remove(work)

    def _say_if_waiting(self, busy: list[_Work]) -> None:
        waiting = sum(work.begun is not None for work in busy)
        if waiting and time.monotonic() - self._last_said > _SAY_WAITING_S:
            self._last_said = time.monotonic()
            logger.warning("the cluster has no place yet", extra={"num_waiting": waiting})


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
