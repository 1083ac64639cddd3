"""Two hosts with a disk and a cable in common, as network namespaces, train one model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svd.config.compute import SlurmLauncherConfig
from svd.runtime.launch.launcher import JobState, RankJob
from svd.runtime.launch.torchrun_command import node_arguments
from svd.runtime.tracking import NullTracker
from svd.training.stage import stages
from svd.types.artifact import ModelRecord
from tests.unit.training.world import DENOISER, Recipe, make_world, stage_config

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]
HOSTS = {"svd-a": "10.213.7.1", "svd-b": "10.213.7.2"}
CABLE = {"svd-a": "svd-veth-a", "svd-b": "svd-veth-b"}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[None]:
    """Two network namespaces, each with one end of a cable and no way out."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    try:
        ip("netns", "add", "svd-a")
    except subprocess.CalledProcessError as err:
        pytest.skip(f"no network namespaces here: {err.stderr.strip()}")
    try:
        ip("netns", "add", "svd-b")
        ip("link", "add", CABLE["svd-a"], "type", "veth", "peer", "name", CABLE["svd-b"])
        for host, address in HOSTS.items():
            ip("link", "set", CABLE[host], "netns", host)
            ip("-n", host, "address", "add", f"{address}/24", "dev", CABLE[host])
            ip("-n", host, "link", "set", CABLE[host], "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:  # the cable goes with its ends
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


class TwoHosts:
    """A launcher: one torchrun on each host, as the schedulers start them."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def submit(self, job: RankJob) -> str:
        config = SlurmLauncherConfig(kind="slurm", nodes=2, gpus_per_node=0)
        for rank, host in enumerate(HOSTS):
            arguments = node_arguments(job, config, node_rank=str(rank), address=HOSTS["svd-a"])
            command = ["ip", "netns", "exec", host, sys.executable, *arguments]
            cable = {"GLOO_SOCKET_IFNAME": CABLE[host]}
            env = {**os.environ, **cable, **job.rank_environment()}
            self._processes.append(subprocess.Popen(command, cwd=job.folder, env=env))
        return job.name

    def poll(self, job_id: str) -> JobState:
        codes = [process.poll() for process in self._processes]
        if None in codes:
            return JobState.RUNNING
        return JobState.FAILED if any(codes) else JobState.SUCCEEDED

    def stop(self, job_id: str) -> None:
        for process in self._processes:
            process.terminate()

    def kill(self, job_id: str) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def train(root: Path, launcher: Any) -> tuple[ModelRecord, bytes]:
    config = stage_config(phase={"num_steps": 12}, compute={"num_processes": 2, "zero_stage": 3})
    recipe = Recipe(seed=5, denoiser=DENOISER, finetune_i2v=config)
    workspace = make_world(root)
    stages.run("finetune-i2v", recipe, workspace, tracker=NullTracker(), launcher=launcher)
    folder = workspace.model("finetune-i2v")
    record = ModelRecord.parse((folder / "model.json").read_text(), origin="test")
    return record, (folder / "weights.safetensors").read_bytes()


@pytest.mark.usefixtures("hosts")
def test_two_hosts_end_in_the_weights_of_one(tmp_path: Path) -> None:
    record, apart = train(tmp_path / "apart", TwoHosts())
    _, together = train(tmp_path / "together", None)
    assert record.step == 12
    assert apart == together
