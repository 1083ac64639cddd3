"""Starting the ranks of a training job and waiting for them, wherever they run."""

import logging
import os
import signal
import subprocess
import sys
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

logger = logging.getLogger(__name__)

POLL_EVERY_S: Final = 0.25
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
        folder: Working directory of the ranks.
        environment: Variables to set beside those of this process.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    num_processes: int
    threads_per_process: int
    may_use_gpu: bool
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class JobState(StrEnum):
    """Where a submitted job is."""

    RUNNING = "running"  # queued ones too
    SUCCEEDED = "succeeded"  # every rank ended with exit code 0
    FAILED = "failed"


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

    def kill(self, job_id: str) -> None:
        """End the job now, without giving the ranks time to save anything."""


class LocalLauncher:
    """Ranks as torchrun's children on this machine, talking over loopback.

    torchrun runs in a session of its own, so that Ctrl-C in a terminal reaches this process only,
    which then stops the ranks in good order. Nobody outlives this process (`attached`).
    """

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, job: RankJob) -> str:
        """Start torchrun; the job's id is its process id."""
        command = [
            *(sys.executable, "-m", "svd.runtime.torchrun"),
            *("--nnodes", "1", "--nproc-per-node", str(job.num_processes)),
            # Port 0: the rendezvous takes a free one, so that jobs side by side never meet.
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--rdzv-id", job.name),
            *("--local-addr", "127.0.0.1", "--max-restarts", "0"),
            *("--module", job.module, *job.arguments),
        ]
        try:
            process = subprocess.Popen(
                command, cwd=job.folder, env=_environment(job), start_new_session=True
            )
        except OSError as err:
            raise LaunchError(f"torchrun could not be started: {err}") from err
        job_id = str(process.pid)
        self._processes[job_id] = process
        logger.info("ranks started", extra={"num_processes": job.num_processes, "job": job_id})
        return job_id

    def poll(self, job_id: str) -> JobState:
        """Say where a job is."""
        code = self._processes[job_id].poll()
        if code is None:
            return JobState.RUNNING
        return JobState.SUCCEEDED if code == 0 else JobState.FAILED

    def stop(self, job_id: str) -> None:
        """Send SIGTERM to torchrun, which passes it on to every rank and waits for them."""
        process = self._processes[job_id]
        if process.poll() is None:
            process.terminate()

    def kill(self, job_id: str) -> None:
        """Kill torchrun; its ranks notice within a fraction of a second and follow."""
        process = self._processes[job_id]
        process.kill()
        process.wait()


def _environment(job: RankJob) -> dict[str, str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(job.threads_per_process),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT_S),
        "PYTHONUNBUFFERED": "1",
        # gloo would take the interface of the host's name, which may not resolve.
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }
    if not job.may_use_gpu:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return environment | dict(job.environment)


def follow(launcher: Launcher, job: RankJob) -> Iterator[JobState]:
    """Submit a job and yield its state now and then; the last one yielded is final.

    SIGTERM and SIGINT to this process stop the ranks in good order first, so that they can save
    their state; a caller that stops iterating kills the job.
    """
    with _requests_to_stop() as asked:
        job_id = launcher.submit(job)
        was_stopped = False
        try:
            while (state := launcher.poll(job_id)) is JobState.RUNNING:
                if asked.is_set() and not was_stopped:
                    logger.warning("stopping: ranks save their state and end")
                    launcher.stop(job_id)
                    was_stopped = True
                yield state
                time.sleep(POLL_EVERY_S)
        except BaseException:
            launcher.kill(job_id)
            raise
        yield state


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
