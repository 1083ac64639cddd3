"""The real chain under DVC: killed twice and resumed, it ends in the bytes of an unbroken run."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from svd.runtime.fingerprint import file_sha256
from tests.e2e.micro import micro_project

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("chain"),
]
WEIGHTS = ("autoencoder", "pretrain-image", "pretrain-video", "finetune-i2v")


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "DVC_NO_ANALYTICS": "1",
    }


def repro(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def kill_during(root: Path, stage: str, reached: Callable[[], bool]) -> None:
    """Start a stage and kill it and all it started, without warning, once a point is reached."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    process = subprocess.Popen(
        command, cwd=root, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, f"{stage} ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def live(root: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any((root / ".runs").glob(pattern))


def hashes(root: Path) -> dict[str, str]:
    return {name: file_sha256(root / "models" / name / "weights.safetensors") for name in WEIGHTS}


def test_a_chain_killed_twice_ends_in_the_bytes_of_an_unbroken_one(tmp_path):
    unbroken = micro_project(tmp_path / "unbroken")
    repro(unbroken)
    broken = micro_project(tmp_path / "broken")
    repro(broken, "clip")
    kill_during(broken, "annotate", live(broken, "*/annotate/**/*.json"))
    survived = {path.name for path in (broken / ".runs").glob("*/annotate/**/*.json")}
    repro(broken, "pretrain-image")
    assert survived
    kill_during(broken, "pretrain-video", live(broken, "*/0-clips/checkpoints/*/complete*"))
    repro(broken)
    assert hashes(broken) == hashes(unbroken)
    lock = (unbroken / "dvc.lock").read_text()
    upto = lock.index("  register:")  # which names the store's own folder
    assert (broken / "dvc.lock").read_text()[:upto] == lock[:upto]

    again = repro(unbroken)
    assert "Running stage" not in again

    _change_thresholds(unbroken)
    changed = repro(unbroken, "filter")
    assert "Running stage 'filter'" in changed
    assert "Running stage 'annotate'" not in changed


def _change_thresholds(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    assert "min: 0.01" in text
    (root / "params.yaml").write_text(text.replace("min: 0.01", "min: 0.02"))
