"""One task per stage: it runs the DVC stage in a subprocess and reports DVC's skip as cached.

The stages that the recipe does not plan share a task and a process, since they only leave a record.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.errors import StageFailedError
from flows.folders import hold_folders
from flows.policies import RETRIES, RETRY_DELAYS_S, gpu_turn, is_worth_retrying
from flows.processes import start
from flows.progress import StageProgress, artifact_key
from flows.run import PipelineRun, dvc_program
from svd.runtime.tracking import tracker_run_id
from svd.runtime.workspace import Workspace
from svd.types.stage import StageName, StageRun

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


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # DVC is the only cache
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_worth_retrying,
)
def run_stage(stage: StageName, run: PipelineRun, *, force: bool = False) -> State[Any]:
    """Bring one stage up to date.

    Args:
        stage: A stage of dvc.yaml.
        run: Of which it is a part.
        force: Run it even if DVC finds nothing changed.

    Raises:
        StageFailedError: The stage's process ended with an error, or its time was over.
    """
    ran = False
    if force or stage not in run.unchanged:
        with gpu_turn(stage):
            ran = _reproduce((stage,), run, said_by=stage, force=force)
    _publish(run.workspace, stage, ran=ran)
    return _ended(stage, ran=ran)


@task(
    task_run_name="not planned",
    cache_policy=NO_CACHE,  # DVC is the only cache
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_worth_retrying,
)
def note_unplanned(stages: tuple[StageName, ...], run: PipelineRun) -> State[Any]:
    """Let stages that the recipe does not plan leave the record that says so.

    Raises:
        StageFailedError: Their process ended with an error.
    """
    changed = tuple(stage for stage in stages if stage not in run.unchanged)
    ran = bool(changed) and _reproduce(changed, run, said_by="not planned")
    return _ended(", ".join(stages), ran=ran)


def _reproduce(
    stages: tuple[StageName, ...], run: PipelineRun, *, said_by: str, force: bool = False
) -> bool:
    """Let DVC bring stages up to date in one process; return whether it ran any of them."""
    # DVC's own lock is free while a stage computes; those who wait for it wait milliseconds.
    command = [dvc_program(), "--wait-for-lock", "repro", "--single-item", *stages]
    with hold_folders(run.workspace, stages) as held:
        lines = _run_and_log(
            [*command, *(["--force"] if force else [])], run, said_by=said_by, holds=held
        )
    return any(RAN_LINE.search(line) for line in lines)


def _ended(what: str, *, ran: bool) -> State[Any]:
    if ran:
        return Completed(message=f"{what} ran", data=what)
    return Completed(name="Cached", message=f"{what}: DVC found nothing changed", data=what)


def _run_and_log(
    command: list[str], run: PipelineRun, *, said_by: str, holds: tuple[int, ...]
) -> list[str]:
    logger = get_run_logger()
    lines: list[str] = []
    progress = StageProgress(said_by)
    environment = {
        **os.environ,
        "SVD_PIPELINE_RUN": flow_run.get_root_flow_run_id() or "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **run.environment,
    }
    timeout_s = None if run.timeout_hours is None else run.timeout_hours * 3600
    with start(command, Path(run.root), environment, holds=holds, timeout_s=timeout_s) as process:
        for text in process.lines:
            if text and not text.strip().startswith(HINTS):
                lines.append(text)
                logger.info(text)
                progress.follow(text)
    if process.ran_out_of_time:
        detail = f"not finished within {run.timeout_hours:g} h; stopped, what it has saved is kept"
        raise StageFailedError(said_by, "timeout", detail)
    if process.exit_code:
        raise failure_of(said_by, process.exit_code, lines)
    return lines


def failure_of(stage: str, code: int, lines: list[str]) -> StageFailedError:
    """Return the failure of a process from what it printed last."""
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
    facts = {**run.report.summary, "W&B run": tracker_run_id(stage, run.fingerprint)}
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    report = workspace.report.relative_to(workspace.root).as_posix()
    links = "\n".join(
        f"- [{name}]({(workspace.root / name).absolute().as_uri()})"
        for name in (*run.report.outputs, report)
    )
    state = f"ran in {run.wall_s:.0f} s" if ran else "unchanged since " + run.started_at
    create_markdown_artifact(
        key=artifact_key("stage", stage),
        markdown=f"## {stage}\n\n{state}\n\n| | |\n|---|---|\n{rows}\n\n{links}\n",
        description=f"{stage}: {state}",
    )
