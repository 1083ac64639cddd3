"""A small project with the real stage names, and one Prefect test server per test run."""

import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import yaml

from flows.run import PipelineRun
from svd.config.derive import DERIVABLE
from svd.types.stage import CHAIN, STAGES

STAGE_SCRIPT = """
import pathlib, sys, time
stage = sys.argv[1]
fault = pathlib.Path(f"fault-{stage}")
if fault.exists():
    print(fault.read_text(), flush=True)
    if "once" in fault.name + fault.read_text():
        fault.unlink()
    sys.exit(1)
meeting = pathlib.Path(f"meet-{stage}")
if meeting.exists():
    pathlib.Path(f"here-{stage}").touch()
    deadline = time.monotonic() + 100
    while not pathlib.Path(f"here-{meeting.read_text()}").exists():
        if time.monotonic() > deadline:
            sys.exit(f"{stage} waited for {meeting.read_text()}")
        time.sleep(0.05)
with open("ran.log", "a") as log:
    log.write(stage + "\\n")
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path(f"out/{stage}").write_text(stage + pathlib.Path("params.yaml").read_text())
"""


# What a derived stage follows; those of the chain follow each other.
BEHIND = {"camera-motion": "clip", "finetune-t2v": "pretrain-video"}


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The instant project, as the current folder."""
    monkeypatch.chdir(instant_project(tmp_path))
    return tmp_path


def instant_project(root: Path, *, planned: Collection[str] = DERIVABLE) -> Path:
    """Make a git and DVC project whose stages are instant; those of the chain follow each other."""
    derive = {name: name in planned for name in DERIVABLE}
    (root / "stage.py").write_text(STAGE_SCRIPT)
    (root / "params.yaml").write_text(f"seed: 1\nderive: {json.dumps(derive)}\n")
    stages: dict[str, dict[str, object]] = {}
    for stage in STAGES:
        name, _, member = stage.partition("@")
        whole = f"{name}@${{item}}" if member else stage
        behind = BEHIND.get(stage, "finetune-i2v")
        before = CHAIN[CHAIN.index(stage) - 1] if stage in CHAIN else behind
        deps = [] if stage == CHAIN[0] else [f"out/{before}"]
        entry: dict[str, object] = {
            "cmd": f"{sys.executable} stage.py {whole}",
            "deps": ["stage.py", *deps],
            "params": ["seed"],
            "outs": [f"out/{whole}"],
        }
        if member:
            group = stages.setdefault(name, {"foreach": [], "do": entry})
            group["foreach"] = [*group["foreach"], member]
        else:
            stages[stage] = entry
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (root / ".gitignore").write_text("ran.log\n.svd/\n/out\nprefect.toml\n")
    (root / "recipes").mkdir()
    (root / "recipes" / "other.yaml").write_text("seed: 7\n")
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=root, check=True)
    return root


def run_in(root: Path, **changes: object) -> PipelineRun:
    """A run of every stage in a project."""
    return PipelineRun(home=str(root), root=str(root), stages=list(STAGES), **changes)


def ran_in(root: Path) -> list[str]:
    """Return the stages that have run in a project, in their order."""
    log = root / "ran.log"
    return log.read_text().split() if log.exists() else []
