"""Ranks under Slurm: one batch job, in it one torchrun per node.

The job's name is the run's fingerprint, so a submit finds what an earlier one left in the queue.
The batch script starts the ranks again, as the same job, when the time limit comes or when ranks
were lost; they resume from their last checkpoint. Slurm does so itself when a node is lost.
"""

import getpass
import logging
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from svd.config.compute import SlurmLauncherConfig
from svd.errors import LaunchError
from svd.runtime.launch.inquiry import ASK_EVERY_S, Inquiry
from svd.runtime.launch.launcher import JobState, RankJob
from svd.runtime.launch.torchrun_command import node_arguments

logger = logging.getLogger(__name__)

_NUM_LOG_LINES: Final = 40  # of a failed job, shown here
# Source: "JOB STATE CODES" of squeue(1); all other states are on the way to one of these.
_FAILED: Final = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
        *("PREEMPTED", "TIMEOUT"),
    }
)


class SlurmLauncher:
    """Submits with sbatch, asks squeue and, for jobs it has forgotten, sacct."""

    def __init__(self, config: SlurmLauncherConfig, *, ask_every_s: float = ASK_EVERY_S) -> None:
        self._config = config
        self._folders: dict[str, Path] = {}
        self._inquiry = Inquiry(self._ask, every_s=ask_every_s)

    def submit(self, job: RankJob) -> str:
        """Queue the job, or find it in the queue; return Slurm's number of it."""
        job_id = self._find(job.name)
        if job_id is None:
            job_id = self._queue(job)
            logger.info("job queued", extra={"job": job_id, "log": _log(job.folder, job_id)})
        else:
            logger.info("job found again", extra={"job": job_id, "log": _log(job.folder, job_id)})
            _asked(job.folder).unlink(missing_ok=True)  # of a request that did not get through
        self._folders[job_id] = job.folder
        return job_id

    def poll(self, job_id: str) -> JobState:
        """Say where a job is."""
        return self._inquiry.state(job_id)

    def stop(self, job_id: str) -> None:
        """Send SIGTERM to every torchrun, which passes it on; the script does not start again."""
        # Ranks that have only begun to start die of the signal without a word.
        _asked(self._folders[job_id]).touch()
        # A job that still waits has no ranks that could save anything.
        _run("scancel", "--state=PENDING", job_id)
        _run("scancel", "--state=RUNNING", "--signal=TERM", job_id)

    def abandon(self, job_id: str) -> None:
        """Leave the job: the next submit finds it."""
        logger.warning("the job goes on; run the stage again to follow it", extra={"job": job_id})

    def _find(self, name: str) -> str | None:
        states = "PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING,REQUEUED"
        user = getpass.getuser()
        found = _run(
            *("squeue", "--noheader", f"--user={user}", f"--name={_job_name(name)}"),
            *(f"--states={states}", "--format=%i"),
        )
        return found.split()[0] if found.split() else None

    def _queue(self, job: RankJob) -> str:
        for left in (_asked(job.folder), _losses(job.folder)):
            left.unlink(missing_ok=True)
        script = job.folder / "job.sbatch"
        script.write_text(batch_script(job, self._config), encoding="utf-8")
        return _run("sbatch", "--parsable", str(script)).strip().split(";")[0]

    def _ask(self, job_id: str) -> JobState:
        word = self._word(job_id)
        state = _state_of(word)
        if state is JobState.FAILED:
            self._show_log(job_id, word)
        return state

    def _word(self, job_id: str) -> str:
        """Return Slurm's word for a job's state; "" if it has forgotten it."""
        try:
            word = _run("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T")
        except LaunchError as err:
            if "Invalid job id" not in str(err):
                raise
            word = ""
        if word.split():
            return word.split()[0]
        try:
            words = _run("sacct", "--noheader", "-X", "-P", "-j", job_id, "-o", "State").split()
        except LaunchError as err:
            # Neither the queue nor an accounting database remembers a job that ended long ago.
            logger.warning("sacct has no answer", extra={"job": job_id, "error": str(err)})
            words = []
        return words[0] if words else ""

    def _show_log(self, job_id: str, word: str) -> None:
        log = _log(self._folders[job_id], job_id)
        lines = (
            log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        )
        for line in lines[-_NUM_LOG_LINES:]:
            logger.error(line)
        logger.error("the Slurm job failed", extra={"job": job_id, "state": word, "log": log})


def batch_script(job: RankJob, config: SlurmLauncherConfig) -> str:
    """Return what sbatch is given."""
    address, node_rank = '"$address"', '"$SLURM_NODEID"'
    arguments = node_arguments(job, config, node_rank=node_rank, address="$address")
    torchrun = " ".join(
        word if word == node_rank else address if word == "$address" else shlex.quote(word)
        for word in (sys.executable, *arguments)
    )
    exports = [
        f"export {name}={shlex.quote(value)}" for name, value in job.rank_environment().items()
    ]
    lines = (
        "#!/bin/bash",
        *(f"#SBATCH {shlex.quote(option)}" for option in _options(job, config)),
        *exports,
        *config.setup,
        "set -u",
        _SCRIPT.format(
            outcome=shlex.quote(str(job.outcome)),
            asked=shlex.quote(str(_asked(job.folder))),
            losses=shlex.quote(str(_losses(job.folder))),
            max_restarts=config.max_restarts,
            step=shlex.quote(f"exec {torchrun}"),
        ),
    )
    return "\n".join(lines)


# The step is quoted for the nodes' shells: $SLURM_NODEID differs between them.
_SCRIPT: Final = """\
outcome={outcome} asked={asked} losses={losses}
echo "start $((${{SLURM_RESTART_COUNT:-0}} + 1)) on $SLURM_JOB_NODELIST"
if [ -e "$asked" ]; then echo "stopped on request"; exit 1; fi
rm -f "$outcome"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')

# The time limit is near: let the ranks save, then queue this job again.
again=no
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1  # of the step, not of this script
srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \\
  bash -c {step} &
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done

# Ranks that ended without a word were lost: with a node, or killed on one.
if [ "$code" -ne 0 ] && [ ! -e "$outcome" ]; then
  lost=$(($(cat "$losses" 2>/dev/null || echo 0) + 1))
  echo "$lost" > "$losses"
  if [ "$lost" -le {max_restarts} ]; then again=yes; fi
fi
if [ "$again" = yes ] && [ "$code" -ne 0 ] && [ ! -e "$asked" ]; then
  echo "ended with exit code $code; queued again"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60  # Slurm ends this script meanwhile
fi
exit "$code"
"""


def _options(job: RankJob, config: SlurmLauncherConfig) -> list[str]:
    per_node = job.num_processes // config.nodes
    options = [
        f"--job-name={_job_name(job.name)}",
        f"--nodes={config.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={config.cpus_per_node or per_node * job.threads_per_process}",
        f"--time={config.time_limit}",
        f"--signal=B:USR1@{config.save_before_end_s}",
        "--requeue",
        "--open-mode=append",
        f"--chdir={job.folder}",
        f"--output={_log(job.folder, '%j')}",
    ]
    if config.gpus_per_node:
        options.append(f"--gpus-per-node={config.gpus_per_node}")
    if config.partition is not None:
        options.append(f"--partition={config.partition}")
    if config.account is not None:
        options.append(f"--account={config.account}")
    return [*options, *config.extra_options]


def _job_name(name: str) -> str:
    return f"svd-{name}"


def _asked(folder: Path) -> Path:
    """Return the file that says that the job shall not start again."""
    return folder / "stop-asked"


def _losses(folder: Path) -> Path:
    """Return the file with how often ranks were lost, counted by the batch script."""
    return folder / "times-lost"


def _log(folder: Path, job_id: str) -> Path:
    return folder / f"slurm-{job_id}.log"


def _state_of(word: str) -> JobState:
    if word == "COMPLETED":
        return JobState.SUCCEEDED
    # A job that nobody remembers cannot be waited for; what it left says how far it came.
    return JobState.FAILED if word in _FAILED or not word else JobState.RUNNING


def _run(*command: str) -> str:
    """Run one of Slurm's commands and return what it prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as err:
        raise LaunchError(
            f"{command[0]} could not be started ({err.strerror}): compute.launcher.kind=slurm "
            "needs Slurm's commands on this machine"
        ) from err
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LaunchError(f"{command[0]} failed: {said}")
    return done.stdout
