"""Ranks on this machine, under torchrun."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from svd.errors import LaunchError
from svd.runtime.heap import heap_environment
from svd.runtime.launch.launcher import JobState, RankJob

logger = logging.getLogger(__name__)
_GPU_DEVICES: Final = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")  # CUDA, ROCm, either under WSL
# gloo would take the interface of the host's name, which may not resolve.
_LOOPBACK: Final = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}


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
        environment = {**os.environ, **_LOOPBACK, **job.rank_environment()}
        if not (job.may_use_gpu and _has_gpu()):
            environment |= heap_environment(os.environ.get("GLIBC_TUNABLES"))
        try:
            process = subprocess.Popen(
                command, cwd=job.folder, env=environment, start_new_session=True
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

    def abandon(self, job_id: str) -> None:
        """Kill torchrun; its ranks notice within a fraction of a second and follow."""
        process = self._processes[job_id]
        process.kill()
        process.wait()


def _has_gpu() -> bool:
    """Say whether this machine has an accelerator, by its device files; torch takes seconds."""
    return any(Path(name).exists() for name in _GPU_DEVICES)
