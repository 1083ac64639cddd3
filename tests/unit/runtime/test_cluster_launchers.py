"""What a cluster is asked for: a batch script that shells accept, a manifest that is closed."""

import json
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from svd.config.compute import (
    KubernetesLauncherConfig,
    LocalLauncherConfig,
    SlurmLauncherConfig,
)
from svd.config.load import parse_section
from svd.errors import LaunchError
from svd.runtime.launch import inquiry
from svd.runtime.launch.choice import build_launcher
from svd.runtime.launch.jobset import JobSet
from svd.runtime.launch.kubernetes import KubernetesLauncher, render
from svd.runtime.launch.launcher import JobState, Launcher, RankJob, follow
from svd.runtime.launch.local import LocalLauncher
from svd.runtime.launch.slurm import SlurmLauncher, batch_script
from svd.runtime.launch.torchrun_command import meeting_port


def slurm_config(**changes: Any) -> SlurmLauncherConfig:
    tree = {"kind": "slurm", "nodes": 2, "gpus_per_node": 4, **changes}
    return parse_section(yaml.safe_dump(tree), SlurmLauncherConfig, origin="recipe")


def kubernetes_config(**changes: Any) -> KubernetesLauncherConfig:
    tree = {
        "kind": "kubernetes",
        "nodes": 2,
        "gpus_per_node": 4,
        "image": "registry/svd:1",
        "volume_claim": "work",
        "mount_path": "/",
        **changes,
    }
    return parse_section(yaml.safe_dump(tree), KubernetesLauncherConfig, origin="recipe")


def rank_job(folder: Path) -> RankJob:
    return RankJob(
        name="0123abcd",
        module="svd.training.loop.rank",
        arguments=(f"{folder}/job.json", "it's"),
        num_processes=8,
        threads_per_process=3,
        may_use_gpu=True,
        folder=folder,
        outcome=folder / "outcome.json",
        environment={"GREETING": 'a "quoted" $word'},
    )


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LocalLauncherConfig(), LocalLauncher),
        (slurm_config(), SlurmLauncher),
        (kubernetes_config(), KubernetesLauncher),
    ],
    ids=["local", "slurm", "kubernetes"],
)
def test_the_recipe_chooses_the_launcher(config: Any, kind: type) -> None:
    launcher = build_launcher(config)
    assert isinstance(launcher, kind)
    assert isinstance(launcher, Launcher)


def test_a_port_follows_from_the_name_alone() -> None:
    ports = {meeting_port(f"run {number}") for number in range(200)}
    assert meeting_port("run 7") == meeting_port("run 7")
    assert all(1024 < port < 32768 for port in ports)
    assert len(ports) > 190


def test_a_batch_script_is_a_shell_script_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    script = folder / "job.sbatch"
    script.write_text(batch_script(rank_job(folder), slurm_config(setup=["module load cuda"])))
    subprocess.run(["bash", "-n", script], check=True)


def test_a_step_starts_one_torchrun_with_the_nodes_share_of_ranks(tmp_path: Path) -> None:
    """Run the script with stand-ins for Slurm's commands, and see what a node would run."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    job = rank_job(folder)
    script = folder / "job.sbatch"
    script.write_text(batch_script(job, slurm_config()).replace("exec ", 'printf "%s\\n" '))
    done = run_script(folder, srun='while [ "$1" != bash ]; do shift; done; exec "$@"')
    assert done.returncode == 0
    words = done.stdout.splitlines()
    assert words[2:4] == ["-m", "svd.runtime.torchrun"]
    options = dict(zip(words[4:-2:2], words[5:-2:2], strict=True))
    assert options == {
        "--nnodes": "2",
        "--nproc-per-node": "4",
        "--node-rank": "1",
        "--master-addr": "10.0.0.7",
        "--master-port": str(meeting_port(job.name)),
        "--max-restarts": "0",
        "--module": "svd.training.loop.rank",
    }
    assert words[-2:] == list(job.arguments)


LOST = "exit 137"
OUT_OF_TIME = 'kill -USR1 "$PPID"; sleep 0.3; exit 1'  # Slurm's signal, on which ranks save and end


def test_only_losses_count_against_the_restarts(tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text(
        batch_script(rank_job(tmp_path), slurm_config(max_restarts=2))
    )
    for _ in range(4):
        save = f"echo saved > {tmp_path}/outcome.json; {OUT_OF_TIME}"
        assert "queued again" in run_script(tmp_path, srun=save).stdout
    for expected in (True, True, False):
        done = run_script(tmp_path, srun=LOST)
        assert ("queued again" in done.stdout) is expected
        assert done.returncode == 137


def test_a_job_that_was_asked_to_stop_is_not_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks that have only begun to start leave no outcome, as lost ones do."""
    _program(tmp_path / "bin" / "squeue", "true")
    _program(tmp_path / "bin" / "sbatch", "echo 5")
    _program(tmp_path / "bin" / "scancel", "true")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    launcher = SlurmLauncher(slurm_config())
    launcher.stop(launcher.submit(rank_job(tmp_path)))
    done = run_script(tmp_path, srun="echo ranks start; " + LOST)
    assert (done.returncode, "ranks start" in done.stdout) == (1, False)
    assert "queued again" not in done.stdout
    launcher.submit(rank_job(tmp_path))
    assert "queued again" in run_script(tmp_path, srun=LOST).stdout


def run_script(folder: Path, *, srun: str) -> subprocess.CompletedProcess[str]:
    """Run a batch script with stand-ins for the commands of Slurm that it calls."""
    _program(folder / "bin" / "srun", srun)
    _program(folder / "bin" / "scancel", "true")
    _program(
        folder / "bin" / "scontrol",
        'case "$2" in hostnames) echo n1;; node) echo " NodeAddr=10.0.0.7 NodeHostName=x";; '
        "*) exit 1; esac",  # a requeue that Slurm does would end the script
    )
    env = os.environ | {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_CPUS_PER_TASK": "12",
        "SLURM_JOB_ID": "5",
        "SLURM_NODEID": "1",
    }
    return subprocess.run(
        ["bash", folder / "job.sbatch"], env=env, capture_output=True, text=True, check=False
    )


def test_sbatch_is_asked_for_what_the_recipe_says(tmp_path: Path) -> None:
    config = slurm_config(partition="gpu", account="lab", extra_options=["--exclusive"])
    script = batch_script(rank_job(tmp_path), config)
    asked = {line.removeprefix("#SBATCH ") for line in script.splitlines() if "#SBATCH" in line}
    assert {
        "--job-name=svd-0123abcd",
        "--nodes=2",
        "--gpus-per-node=4",
        "--cpus-per-task=12",
        "--partition=gpu",
        "--account=lab",
        "--exclusive",
        "--requeue",
        "--signal=B:USR1@300",
    } <= asked


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"squeue could not be started .*needs Slurm's commands"):
        SlurmLauncher(slurm_config()).submit(rank_job(tmp_path))


def test_a_manifest_gives_every_node_one_pod_with_its_share_of_ranks(tmp_path: Path) -> None:
    text = render(rank_job(tmp_path), kubernetes_config(memory="64Gi", queue="training"))
    manifest = JobSet.model_validate_json(text)
    assert manifest.metadata.name == "svd-0123abcd"
    assert manifest.metadata.labels["kueue.x-k8s.io/queue-name"] == "training"
    job = manifest.spec.replicated_jobs[0].template.spec
    assert (job.parallelism, job.completions) == (2, 2)
    (container,) = job.template.spec.containers
    assert container.resources.limits == {"cpu": "12", "memory": "64Gi", "nvidia.com/gpu": "4"}
    command = " ".join(container.command)
    assert "--nnodes 2 --nproc-per-node 4 --node-rank $(NODE_RANK)" in command
    assert "--master-addr svd-0123abcd-node-0-0.svd-0123abcd " in command
    assert json.loads(text)["spec"]["network"]["enableDNSHostnames"] is True


def test_a_misspelt_key_of_a_manifest_is_refused(tmp_path: Path) -> None:
    text = render(rank_job(tmp_path), kubernetes_config())
    with pytest.raises(ValidationError, match="completion_mod"):
        JobSet.model_validate_json(text.replace("completionMode", "completion_mod"))


def test_a_run_outside_the_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"not below compute.launcher.mount_path=/shared"):
        render(rank_job(tmp_path), kubernetes_config(mount_path="/shared"))


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that notes its calls and answers `get` with a file's content."""
    _program(
        tmp_path / "bin" / "kubectl",
        f'echo "$@" >> {tmp_path}/calls\n'
        f'case "$2" in get) cat {tmp_path}/answer 2>/dev/null;; '
        f"apply) echo '{{}}' > {tmp_path}/answer;; delete) rm -f {tmp_path}/answer;; esac; true",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def verbs(kubectl: Path) -> list[str]:
    return [line.split()[1] for line in (kubectl / "calls").read_text().splitlines()]


def conditions(kind: str) -> str:
    return json.dumps({"status": {"conditions": [{"type": kind, "status": "True"}]}})


def test_a_second_submit_finds_the_set_of_the_first(kubectl: Path) -> None:
    launcher = KubernetesLauncher(kubernetes_config(), ask_every_s=0)
    first = launcher.submit(rank_job(kubectl))
    assert launcher.submit(rank_job(kubectl)) == first
    assert verbs(kubectl) == ["get", "apply", "get"]


def test_a_set_that_failed_gives_way_to_a_new_one(kubectl: Path) -> None:
    (kubectl / "answer").write_text(conditions("Failed"))
    KubernetesLauncher(kubernetes_config(), ask_every_s=0).submit(rank_job(kubectl))
    assert verbs(kubectl) == ["get", "delete", "apply"]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("{}", JobState.RUNNING),
        (conditions("Suspended"), JobState.RUNNING),
        (conditions("Completed"), JobState.SUCCEEDED),
        (conditions("Failed"), JobState.FAILED),
        (None, JobState.FAILED),
    ],
    ids=["new", "suspended", "completed", "failed", "gone"],
)
def test_a_sets_conditions_say_where_it_is(
    kubectl: Path, answer: str | None, state: JobState
) -> None:
    if answer is not None:
        (kubectl / "answer").write_text(answer)
    launcher = KubernetesLauncher(kubernetes_config(), ask_every_s=0)
    assert launcher.poll("svd-0123abcd") is state


def test_one_question_without_an_answer_ends_nothing(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = KubernetesLauncher(kubernetes_config(), ask_every_s=0)
    job = rank_job(kubectl)
    name = launcher.submit(job)
    _program(kubectl / "bin" / "kubectl", "echo TLS handshake timeout >&2; exit 1")
    assert launcher.poll(name) is JobState.RUNNING
    now = time.monotonic()
    monkeypatch.setattr(inquiry.time, "monotonic", lambda: now + inquiry.MAX_SILENCE_S + 1)
    with pytest.raises(LaunchError, match="kubectl get failed: TLS handshake timeout"):
        launcher.poll(name)


def test_a_job_that_nobody_follows_is_left_for_the_next_submit(kubectl: Path) -> None:
    launcher = KubernetesLauncher(kubernetes_config(), ask_every_s=0)
    states = follow(launcher, rank_job(kubectl))
    assert next(states) is JobState.RUNNING
    states.close()
    assert "delete" not in verbs(kubectl)
    assert launcher.submit(rank_job(kubectl)) == "svd-0123abcd"
    assert verbs(kubectl).count("apply") == 1


def test_a_stopped_set_leaves_its_pods_time_to_save(kubectl: Path) -> None:
    launcher = KubernetesLauncher(kubernetes_config(), ask_every_s=0)
    name = launcher.submit(rank_job(kubectl))
    launcher.stop(name)
    assert "--grace-period" not in (kubectl / "calls").read_text()
    assert launcher.poll(name) is JobState.FAILED


def _program(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
