"""What a launcher is, what it is given, and how a job is followed to its end."""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Final, Protocol, runtime_checkable

from svd.errors import LaunchError
from svd.runtime.heap import heap_environment

logger = logging.getLogger(__name__)

POLL_EVERY_S: Final = 0.25
RETRY_STOP_S: Final = 5.0
SHUTDOWN_TIMEOUT_S: Final = 600  # what ranks get to save a checkpoint after a request to stop


@dataclass(frozen=True, slots=True)
class RankJob:
    """What to start, on as many processes as asked for.

    Attributes:
        name: The run's fingerprint: a launcher that queues finds its job again by it.
        module: Module to run in every rank, as `python -m` would.
        arguments: Its command line.
        num_processes: Ranks in all.
        threads_per_process: OMP_NUM_THREADS of each rank.
        may_use_gpu: Whether ranks may see an accelerator; if not, they stay on the CPU.
        folder: Working directory of the ranks, where a launcher leaves its script and log.
        outcome: File that ranks write if they end by themselves, well or not. Ranks that ended
            without it were lost: a scheduler may start them again.
        environment: Variables to set beside those of this process.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    num_processes: int
    threads_per_process: int
    may_use_gpu: bool
    folder: Path
    outcome: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def rank_environment(self) -> dict[str, str]:
        """Return what every rank needs in its environment, wherever it runs."""
        environment = {
            "OMP_NUM_THREADS": str(self.threads_per_process),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT_S),
            "PYTHONUNBUFFERED": "1",
        }
        if not self.may_use_gpu:
            environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
            environment |= heap_environment()
        return environment | dict(self.environment)


class JobState(StrEnum):
    """Where a submitted job is."""

    RUNNING = "running"  # queued ones too
    SUCCEEDED = "succeeded"  # every rank ended with exit code 0
    FAILED = "failed"
    STOPPED = "stopped"  # as `follow` asked; no launcher says so by itself


@runtime_checkable
class Launcher(Protocol):
    """Who starts ranks: this machine, or a scheduler."""

    def submit(self, job: RankJob) -> str:
        """Start the job, or find the one already submitted under its name; return its id.

        Raises:
            LaunchError: It cannot be started.
        """

    def poll(self, job_id: str) -> JobState:
        """Say where a job is."""

    def stop(self, job_id: str) -> None:
        """Ask the ranks to save their state and end; returns at once."""

    def abandon(self, job_id: str) -> None:
        """Nobody follows the job any more: end it now, unless `submit` can find it again."""


def follow(launcher: Launcher, job: RankJob) -> Iterator[JobState]:
    """Submit a job and yield its state now and then; the last one yielded is final.

    SIGTERM and SIGINT to this process stop the ranks in good order first, so that they can save
    their state; a caller that stops iterating abandons the job.
    """
    with _requests_to_stop() as asked:
        job_id = launcher.submit(job)
        was_stopped = False
        try:
            while (state := launcher.poll(job_id)) is JobState.RUNNING:
                if asked.is_set() and not was_stopped:
                    was_stopped = _stop(launcher, job_id)
                yield state
                time.sleep(POLL_EVERY_S)
        except BaseException:
            launcher.abandon(job_id)
            raise
        yield JobState.STOPPED if was_stopped and state is JobState.FAILED else state


def _stop(launcher: Launcher, job_id: str) -> bool:
    """Ask the ranks to save and end; say whether the request got through."""
    try:
        launcher.stop(job_id)
    except LaunchError as err:
        logger.warning("the request to stop did not get through", extra={"error": str(err)})
        time.sleep(RETRY_STOP_S)
        return False
    logger.warning("stopping: ranks save their state and end")
    return True


@contextmanager
def _requests_to_stop() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event; outside the main thread, signals are left alone."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(_signum: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
