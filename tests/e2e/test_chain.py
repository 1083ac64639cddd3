"""The real chain under DVC: killed and resumed, or on S3, it ends in the bytes of a plain run."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from svd.runtime.fingerprint import file_sha256
from svd.runtime.seaweed import S3Server, start_seaweed, stop_seaweed
from tests.e2e.micro import micro_project, micro_recipe

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.timeout(1800),
]
WEIGHTS = ("autoencoder", "pretrain-image", "pretrain-video", "finetune-i2v")


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    server = start_seaweed(tmp_path / "s3-services", tmp_path / "s3", port=0)
    yield server
    stop_seaweed(tmp_path / "s3-services", grace_s=0.5)


def environment(server: S3Server | None = None) -> dict[str, str]:
    remote = {} if server is None else {**server.environment, "SVD_STORE": "s3://svd"}
    return {
        **os.environ,
        **remote,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "DVC_NO_ANALYTICS": "1",
    }


def call(root: Path, *command: str, server: S3Server | None = None) -> str:
    done = subprocess.run(
        command, cwd=root, env=environment(server), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def repro(root: Path, *stage: str, server: S3Server | None = None) -> str:
    return call(root, sys.executable, "-m", "dvc", "repro", *stage, server=server)


def anew(stage: str) -> tuple[str, ...]:
    """Return the command that runs a stage though nothing changed; it asks no cache."""
    return (sys.executable, "-m", "dvc", "repro", "--single-item", "--force", stage)


def kill_during(root: Path, stage: str, reached: Callable[[], bool], server: S3Server) -> None:
    """Start a stage and kill it and all it started, without warning, once a point is reached."""
    process = subprocess.Popen(
        anew(stage), cwd=root, env=environment(server), start_new_session=True,
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


def test_a_chain_killed_twice_ends_in_the_bytes_of_an_unbroken_one_on_s3(tmp_path, s3):
    unbroken, broken = micro_project(tmp_path / "unbroken"), tmp_path / "broken"
    call(unbroken, "svd", "store", "init", server=s3)
    repro(unbroken, server=s3)
    assert "Running stage" not in repro(unbroken, server=s3)

    shutil.copytree(unbroken, broken, symlinks=True)
    shutil.rmtree(broken / ".runs")  # live state, from which a finished stage is published again
    for stage, point in (
        ("annotate", "*/shards/*/*.jsonl"),
        ("pretrain-video", "*/0-clips/**/checkpoint.json"),
    ):
        kill_during(broken, stage, live(broken, point), s3)
        goes_on = call(broken, *anew(stage), server=s3)
        if stage == "pretrain-video":
            assert "resumed from a checkpoint" in goes_on
    assert "Running stage" not in repro(broken, server=s3)  # what followed need not be made again
    assert hashes(broken) == hashes(unbroken)
    assert (broken / "dvc.lock").read_bytes() == (unbroken / "dvc.lock").read_bytes()

    pushed_and_pulled_back(unbroken, tmp_path / "clone", s3)
    loosen_a_threshold(broken)
    changed = repro(broken, "filter", server=s3)
    assert "Running stage 'filter'" in changed
    assert "Running stage 'annotate'" not in changed


def pushed_and_pulled_back(root: Path, clone: Path, server: S3Server) -> None:
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t")
    call(root, "git", "add", "dvc.lock")
    call(root, *git, "commit", "-qm", "lock")
    call(root, sys.executable, "-m", "dvc", "push", server=server)
    call(root.parent, "git", "clone", "-q", str(root), str(clone))
    call(clone, "svd", "store", "init", server=server)
    call(clone, sys.executable, "-m", "dvc", "pull", server=server)
    for out in ("data", "models", "reports"):
        call(root.parent, "diff", "-r", str(root / out), str(clone / out))


def loosen_a_threshold(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    assert "min: 0.01" in text
    (root / "params.yaml").write_text(text.replace("min: 0.01", "min: 0.02"))


@pytest.mark.slow
def test_what_is_derived_runs_on_top_of_the_chain(tmp_path: Path) -> None:
    root = micro_project(tmp_path / "derived")
    repro(root)
    (root / "params.yaml").write_text(yaml.safe_dump(micro_recipe(derives=True), sort_keys=False))
    ran = repro(root)
    assert "'pretrain-image' didn't change" in ran
    for name in ("finetune-interpolation", "lora@horizontal", "lora@zoom", "lora@static"):
        assert (root / "models" / name / "weights.safetensors").is_file()
    assert (root / "models/finetune-decoder/temporal_decoder.safetensors").is_file()
    metrics = json.loads((root / "reports" / "finetunes" / "metrics.json").read_text())
    assert metrics["psnr_of_frames_between"] > 0
    assert "flicker_of_the_error_of_reconstructions" in metrics
    assert "camera_zoom_lora_zoom_gain" in metrics
    assert "rank_correlation_of_motion_bucket_and_measured_motion" in metrics
