"""Two nodes of a real Slurm train through our launcher, lose one, and end in equal weights."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from svd.config.compute import SlurmLauncherConfig
from svd.errors import LaunchError
from svd.runtime.launch.launcher import JobState, RankJob, follow
from svd.runtime.launch.slurm import SlurmLauncher
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.loop.history import read_rows
from svd.training.stage import stages
from svd.training.stage.job import HistoryRow
from tests.faults.slurm_cluster import SETUP, SlurmCluster, slurm_cluster
from tests.unit.training.world import DENOISER, Recipe, make_world, stage_config

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]
NUM_STEPS, EVERY = 60, 4  # optimizer steps, and between two checkpoints


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def slurm(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The cluster, with its commands on the PATH and no job of an earlier test."""
    monkeypatch.setenv("PATH", f"{cluster.bin}:{os.environ['PATH']}")
    cluster.wait_idle()
    return cluster


def launcher_config(**changes: Any) -> SlurmLauncherConfig:
    tree = {"kind": "slurm", "nodes": 2, "gpus_per_node": 0, "setup": SETUP, **changes}
    return SlurmLauncherConfig.model_validate_json(json.dumps(tree))


def launcher(**changes: Any) -> SlurmLauncher:
    return SlurmLauncher(launcher_config(**changes), ask_every_s=0.5)


def recipe(**compute: Any) -> Recipe:
    config = stage_config(
        phase={"num_steps": NUM_STEPS, "ema_decay": 0.7},
        compute={"num_processes": 2, "zero_stage": 3, **compute},
        checkpoint={"every_steps": EVERY},
        validation={"every_steps": NUM_STEPS, "num_examples": 2, "sigmas": [1.0]},
        log_every_steps=1,
    )
    return Recipe(seed=3, denoiser=DENOISER, finetune_i2v=config)


def train(workspace: Workspace, trained: Recipe, with_launcher: SlurmLauncher | None) -> bytes:
    """Train and return the bytes of the weights."""
    stages.run("finetune-i2v", trained, workspace, tracker=NullTracker(), launcher=with_launcher)
    return (workspace.model("finetune-i2v") / "weights.safetensors").read_bytes()


def script_job(folder: Path, code: str, name: str = "job") -> RankJob:
    (folder / "act.py").write_text(code)
    return RankJob(
        name=name,
        module="act",
        arguments=(str(folder),),
        num_processes=2,
        threads_per_process=1,
        may_use_gpu=False,
        folder=folder,
        outcome=folder / "outcome.json",
    )


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_ranks_of_two_nodes_meet(slurm: SlurmCluster, tmp_path: Path) -> None:
    code = (
        "import os, sys, torch.distributed as dist; dist.init_process_group('gloo');"
        "names = ('RANK', 'WORLD_SIZE', 'SLURM_NODEID', 'OMP_NUM_THREADS', 'DS_ACCELERATOR');"
        "open(f'{sys.argv[1]}/{dist.get_rank()}', 'w').write("
        "' '.join(os.environ[name] for name in names)); dist.barrier()"
    )
    job = script_job(tmp_path, code)
    assert list(follow(launcher(), job))[-1] is JobState.SUCCEEDED
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["0 2 0 1 cpu", "1 2 1 1 cpu"]


def test_a_second_submit_finds_the_job_of_the_first(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = script_job(tmp_path, "import time; time.sleep(300)", name="again")
    first, second = launcher(), launcher()
    job_id = first.submit(job)
    wait_for(lambda: slurm.run("squeue", "-h", "-t", "RUNNING").strip() != "")
    assert second.submit(job) == job_id
    assert second.poll(job_id) is JobState.RUNNING
    second.stop(job_id)
    wait_for(lambda: second.poll(job_id) is JobState.FAILED)


def test_before_the_time_limit_ranks_save_and_the_job_is_queued_again(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    """The first start saves when it is asked to; the second finds what was saved."""
    code = """
import os, signal, sys, time
saved = f"{sys.argv[1]}/saved-{os.environ['RANK']}"
def save(*_):
    open(saved, "w").close()
    open(f"{sys.argv[1]}/outcome.json", "w").write("stopped")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
if not os.path.exists(saved):
    time.sleep(300)
"""
    job = script_job(tmp_path, code, name="limit")
    # Slurm counts in minutes: of one minute, 40 seconds are left for saving.
    config = {"time_limit": "1", "save_before_end_s": 40}
    assert list(follow(launcher(**config), job))[-1] is JobState.SUCCEEDED
    log = next(tmp_path.glob("slurm-*.log")).read_text()
    assert log.count("start 1 on") == log.count("start 2 on") == 1


def test_a_request_to_stop_ends_the_job_for_good(slurm: SlurmCluster, tmp_path: Path) -> None:
    code = """
import signal, sys, time
def save(*_):
    open(f"{sys.argv[1]}/outcome.json", "w").write("stopped")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
open(f"{sys.argv[1]}/up", "w").close()
time.sleep(300)
"""
    job, asking = script_job(tmp_path, code, name="stop"), launcher()
    job_id = asking.submit(job)
    wait_for((tmp_path / "up").exists)
    asking.stop(job_id)
    wait_for(lambda: asking.poll(job_id) is JobState.FAILED)
    assert "queued again" not in next(tmp_path.glob("slurm-*.log")).read_text()


def test_ranks_that_say_why_they_failed_are_not_started_again(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    code = "import sys; open(f'{sys.argv[1]}/outcome.json', 'w').write('failed'); sys.exit(1)"
    job = script_job(tmp_path, code, name="fail")
    assert list(follow(launcher(), job))[-1] is JobState.FAILED
    assert next(tmp_path.glob("slurm-*.log")).read_text().count("start ") == 1


def test_lost_ranks_are_started_again_only_so_often(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = script_job(tmp_path, "import os; os.kill(os.getpid(), 9)", name="lost")
    assert list(follow(launcher(max_restarts=1), job))[-1] is JobState.FAILED
    assert next(tmp_path.glob("slurm-*.log")).read_text().count("start ") == 2


def test_an_option_that_slurm_refuses_is_one_sentence(slurm: SlurmCluster, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"sbatch failed: .*invalid partition"):
        launcher(partition="nowhere").submit(script_job(tmp_path, "", name="refused"))


def test_a_run_that_loses_a_node_ends_in_the_weights_of_an_unbroken_one(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    """ZeRO-3 over two nodes; the node is killed after a checkpoint and comes back later."""
    slurm.hastens = False
    workspace = make_world(tmp_path / "broken")
    killed: list[int] = []

    def steps() -> int:
        histories = list(workspace.runs.glob("*/history.jsonl"))
        return len(read_rows(histories[0], HistoryRow)) if histories else 0

    def kill_and_bring_back() -> None:
        wait_for(lambda: steps() >= 3 * EVERY)
        killed.append(slurm.kill_node("n2"))
        wait_for(lambda: "RUNNING" not in slurm.run("squeue", "-h", "--format=%T"))
        slurm.start_node("n2")

    killer = threading.Thread(target=kill_and_bring_back)
    killer.start()
    launcher_tree = launcher_config().model_dump(mode="json")
    broken = train(workspace, recipe(launcher=launcher_tree), launcher())
    killer.join()
    assert killed[0] > 3  # slurmd, slurmstepd, torchrun, a rank
    folder = next(workspace.runs.iterdir())
    log = next(folder.glob("slurm-*.log")).read_text()
    assert "start 2 on" in log
    assert "resumed from a checkpoint" in log
    whole = train(make_world(tmp_path / "whole"), recipe(), None)
    assert broken == whole
