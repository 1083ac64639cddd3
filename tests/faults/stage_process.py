"""A training stage in a process of its own, as its door starts it, and what it leaves behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from svd.runtime.log import set_up_logging
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.loop.history import read_rows
from svd.training.stage import stages
from svd.training.stage.job import HistoryRow
from tests.unit.training.world import Recipe

ROOT = Path(__file__).resolve().parents[2]


def start(
    workspace: Workspace, recipe: str, *arguments: object, **environment: str
) -> subprocess.Popen[bytes]:
    """Run the stage of a recipe, a function "module:name" that returns (stage, Recipe)."""
    code = (
        "from pathlib import Path; import tests.faults.stage_process as s;"
        f"s.run_stage(Path({str(workspace.root)!r}), {recipe!r}, {arguments!r})"
    )
    log = (workspace.root / "log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=log,
        stderr=log,
    )


def run_stage(root: Path, recipe: str, arguments: tuple[object, ...]) -> None:
    module, _, name = recipe.partition(":")
    stage, params = getattr(__import__(module, fromlist=[name]), name)(*arguments)
    assert isinstance(params, Recipe)
    set_up_logging()
    stages.run(stage, params, Workspace(root), tracker=NullTracker())


def run_folder(workspace: Workspace) -> Path:
    (folder,) = workspace.runs.iterdir()
    return folder


def steps_made(workspace: Workspace) -> int:
    if not workspace.runs.is_dir():
        return 0
    rows = read_rows(run_folder(workspace) / "history.jsonl", HistoryRow)
    return rows[-1].step if rows else 0


def wait_for(
    workspace: Workspace, process: subprocess.Popen[bytes], condition: Callable[[], bool]
) -> None:
    while not condition():
        assert process.poll() is None, log_of(workspace)
        time.sleep(0.02)


def ranks_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    everyone = psutil.Process(process.pid).children(recursive=True)
    return [
        child for child in everyone if child.cmdline()[-3:-1] == ["-m", "svd.training.loop.rank"]
    ]


def log_of(workspace: Workspace) -> str:
    return (workspace.root / "log").read_text()
