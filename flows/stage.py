"""One task per stage: it runs the DVC stage in a subprocess and reports DVC's skip as cached."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.errors import StageFailedError
from flows.policies import RETRIES, RETRY_DELAYS_S, is_worth_retrying
from flows.progress import StageProgress, artifact_key
from svd.runtime.workspace import Workspace
from svd.types.stage import StageRun

ERROR_LINE: Final = re.compile(r"svd: \[(?P<kind>\w+)\] (?P<detail>.*)")
RAN_LINE: Final = re.compile(r"Running stage '")
# What DVC says after every stage, which is no news in a run of many.
HINTS: Final = (
    "To track the changes",
    "git add ",
    "To enable auto",
    "dvc config ",
    "Use `dvc push`",
)
KILL_AFTER_S: Final = 60.0  # a training stage saves its state on SIGTERM


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # DVC is the only cache
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_worth_retrying,
)
def run_stage(stage: str, *, force: bool = False) -> State[Any]:
    """Bring one stage up to date.

    Args:
        stage: A stage of dvc.yaml.
        force: Run it even if DVC finds nothing changed.

    Raises:
        StageFailedError: The stage's process ended with an error.
    """
    workspace = Workspace.find()
    command = [_dvc(), "repro", "--single-item", stage, *(["--force"] if force else [])]
    lines = _run_and_log(command, workspace, stage=stage)
    ran = any(RAN_LINE.search(line) for line in lines)
    _publish(workspace, stage, ran=ran)
    if ran:
        return Completed(message=f"{stage} ran", data=stage)
    return Completed(name="Cached", message=f"{stage}: DVC found nothing changed", data=stage)


def _run_and_log(command: list[str], workspace: Workspace, *, stage: str) -> list[str]:
    logger = get_run_logger()
    lines: list[str] = []
    progress = StageProgress(stage)
    with _running(command, workspace) as process:
        for line in process.stdout or ():
            text = line.rstrip()
            if text and not text.strip().startswith(HINTS):
                lines.append(text)
                logger.info(text)
                progress.follow(text)
    if process.returncode:
        raise _failure(stage, process.returncode, lines)
    return lines


@contextlib.contextmanager
def _running(command: list[str], workspace: Workspace) -> Iterator["subprocess.Popen[str]"]:
    """Run a command in its own process group, which ends with us if we are cancelled.

    The child inherits an open lock file: whoever comes next, also after this process was killed,
    waits until every process of the earlier stage is gone, because DVC bears no two at once.
    """
    workspace.state.mkdir(exist_ok=True)
    env = {
        **os.environ,
        "SVD_PIPELINE_RUN": flow_run.get_root_flow_run_id() or "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    with (workspace.state / "pipeline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            command,
            cwd=workspace.root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
        try:
            yield process
            process.wait()
        finally:
            _end_group(process)


def _end_group(process: "subprocess.Popen[str]") -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(stage: str, code: int, lines: list[str]) -> StageFailedError:
    said = next((match for line in reversed(lines) if (match := ERROR_LINE.search(line))), None)
    if said:
        return StageFailedError(stage, said["kind"], said["detail"])
    return StageFailedError(stage, f"exit {code}", " / ".join(lines[-3:]))


def _publish(workspace: Workspace, stage: str, *, ran: bool) -> None:
    """Leave an artifact with the stage's summary and links to what it made."""
    path = workspace.stage_run(stage)
    if not path.is_file():  # restored from DVC's run cache: nothing was said here
        return
    run = StageRun.parse(path.read_text(encoding="utf-8"), origin=str(path))
    rows = "\n".join(f"| {key} | {value} |" for key, value in run.report.summary.items())
    links = "\n".join(
        f"- [{name}]({(workspace.root / name).resolve().as_uri()})" for name in run.report.outputs
    )
    state = f"ran in {run.wall_s:.0f} s" if ran else "unchanged since " + run.started_at
    create_markdown_artifact(
        key=artifact_key("stage", stage),
        markdown=f"## {stage}\n\n{state}\n\n| | |\n|---|---|\n{rows}\n\n{links}\n",
        description=f"{stage}: {state}",
    )


def _dvc() -> str:
    beside = Path(sys.executable).parent / "dvc"
    return str(beside) if beside.exists() else shutil.which("dvc") or "dvc"
