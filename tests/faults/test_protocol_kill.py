"""A protocol run that is killed, and one that is shared by processes, through the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from svd.evaluation.protocols.catalogue import PROTOCOLS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
NUM_CLIPS = 26  # more than the tiny network's 24 dimensions, so that moments decide
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    PROTOCOLS["heldout"].card.dataset.write_small(folder, NUM_CLIPS)
    (folder / "params.yaml").write_text("seed: 1\n")
    return folder


def start(data: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "svd.cli", "protocol", "run", "heldout", "--truth"]
    command += ["--video-network", "tiny", "--distance", "tiny", "--out", str(out)]
    for setting in ("num_frames=12", "height=48", "width=72"):
        command += ["--set", setting]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *options], cwd=data, env=environment)


def finish(data: Path, out: Path, *options: str) -> dict[str, object]:
    assert start(data, out, *options).wait(timeout=240) == 0
    return json.loads((out / "report.json").read_text())


def test_a_kill_costs_at_most_one_clip_and_the_run_ends_in_the_same(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = start(data, out)
    finished = out / "clips"
    deadline = time.monotonic() + 200
    while len(list(finished.glob("*.safetensors"))) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in finished.glob("*.safetensors")}
    plan = (out / "plan.json").read_bytes()
    assert 5 <= len(kept) < NUM_CLIPS
    resumed = finish(data, out)
    assert (out / "plan.json").read_bytes() == plan
    after = {path.name: path.stat().st_mtime_ns for path in finished.glob("*.safetensors")}
    assert len(after) == NUM_CLIPS
    assert {name: after[name] for name in kept} == kept  # nothing that was done is done again

    shared = finish(data, tmp_path / "shared", "--processes", "2")
    assert shared["num_measured"] == resumed["num_measured"] == NUM_CLIPS
    for ours, other in zip(resumed["records"], shared["records"], strict=True):
        assert ours["name"] == other["name"]
        assert ours["num"] == other["num"]
        assert ours["value"] == pytest.approx(other["value"], rel=1e-9, abs=1e-9)
