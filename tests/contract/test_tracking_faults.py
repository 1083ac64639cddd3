"""A W&B server that is dead or falls ill costs some seconds and a warning, never a stage."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wandb

from svd.runtime import tracking
from svd.runtime.tracking import WandbTracker, open_tracker
from svd.runtime.workspace import Workspace
from tests.contract.wandb_stub import WandbStub

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.yaml").write_text("stages: {clip: {params: [seed]}}\n")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb"))
    yield Workspace(tmp_path)
    wandb.teardown()  # it remembers the server's address as long as its service runs


def losses_on_disk(workspace: Workspace, pattern: str) -> list[float]:
    found = []
    for folder in (workspace.root / "wandb").glob(pattern):
        command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json"]
        done = subprocess.run([*command, str(folder)], capture_output=True, check=True)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        found += [
            record["history"]["item"]["train/loss"]
            for record in records
            if record["type"] == "history"
        ]
    return found


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_server_that_is_not_there_leaves_an_offline_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking, "_START_TIMEOUT_S", 3.0)
    with open_tracker("clip", workspace=workspace, config={}) as tracker:
        assert isinstance(tracker, WandbTracker)
        tracker.log({"loss": 2.5}, step=1)
    assert losses_on_disk(workspace, "offline-run-*") == [2.5]


def test_a_server_that_falls_ill_does_not_hold_the_end_up(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_FINISH_TIMEOUT_S", 3.0)
    monkeypatch.setattr(tracking, "_START_TIMEOUT_S", 120.0)  # of a busy machine
    with WandbStub() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with open_tracker("clip", workspace=workspace, config={}) as tracker:
            tracker.log({"loss": 2.5}, step=1)
            server.is_failing = True
            tracker.log({"loss": 1.5}, step=2)
            _wait_for(lambda: server.num_failed > 0)
            started = time.monotonic()
        assert time.monotonic() - started < 60
        assert server.num_failed > 0
    wandb.teardown()  # as at the end of a process: what the service holds goes to disk
    assert losses_on_disk(workspace, "run-*") == [2.5, 1.5]
