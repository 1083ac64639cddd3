"""Ranks are started with what they need, stopped in good order, and never outlive their parent."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from svd.errors import LaunchError
from svd.runtime.launch.launcher import JobState, Launcher, RankJob, follow
from svd.runtime.launch.local import LocalLauncher


def rank_job(folder: Path, module: str = "nothing", *, num_processes: int = 1) -> RankJob:
    return RankJob(
        name="test",
        module=module,
        arguments=("one", "two words"),
        num_processes=num_processes,
        threads_per_process=3,
        may_use_gpu=False,
        folder=folder,
        outcome=folder / "outcome.json",
        environment={"MARK": "here"},
    )


class FakeLauncher:
    """Runs for some polls; remembers what it was told."""

    def __init__(self, polls: int, end: JobState = JobState.SUCCEEDED) -> None:
        self.left, self.end, self.told = polls, end, []

    def submit(self, job: RankJob) -> str:
        self.told.append("submit")
        return "id"

    def poll(self, job_id: str) -> JobState:
        self.left -= 1
        return JobState.RUNNING if self.left > 0 else self.end

    def stop(self, job_id: str) -> None:
        self.told.append("stop")

    def abandon(self, job_id: str) -> None:
        self.told.append("abandon")


def test_local_launcher_is_a_launcher() -> None:
    assert isinstance(LocalLauncher(), Launcher)


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED])
def test_following_ends_with_the_final_state(tmp_path: Path, end: JobState) -> None:
    states = list(follow(FakeLauncher(3, end), rank_job(tmp_path)))
    assert states == [JobState.RUNNING, JobState.RUNNING, end]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_stops_the_ranks_once_and_handlers_are_put_back(
    tmp_path: Path, number: signal.Signals
) -> None:
    launcher, before = FakeLauncher(4, JobState.FAILED), signal.getsignal(number)
    states = []
    for state in follow(launcher, rank_job(tmp_path)):
        states.append(state)
        if len(states) == 1:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
    assert launcher.told == ["submit", "stop"]
    assert states[-1] is JobState.STOPPED
    assert signal.getsignal(number) is before


def test_a_request_that_does_not_get_through_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svd.runtime.launch.launcher.RETRY_STOP_S", 0.01)

    class Silent(FakeLauncher):
        def stop(self, job_id: str) -> None:
            super().stop(job_id)
            if len(self.told) < 4:
                raise LaunchError("scancel failed: no answer")

    launcher = Silent(6, JobState.FAILED)
    states = follow(launcher, rank_job(tmp_path))
    next(states)
    os.kill(os.getpid(), signal.SIGTERM)
    assert list(states)[-1] is JobState.STOPPED
    assert launcher.told == ["submit", "stop", "stop", "stop"]


def test_a_caller_that_gives_up_abandons_the_job(tmp_path: Path) -> None:
    launcher = FakeLauncher(100)
    states = follow(launcher, rank_job(tmp_path))
    next(states)
    states.close()
    assert launcher.told == ["submit", "abandon"]


def test_a_folder_that_is_not_there_is_a_launch_error(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="torchrun could not be started"):
        LocalLauncher().submit(rank_job(tmp_path / "missing"))


def test_every_rank_gets_arguments_threads_and_a_place_in_the_job(tmp_path: Path) -> None:
    (tmp_path / "said.py").write_text(
        textwrap.dedent(
            """
            import json, os, sys
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "OMP_NUM_THREADS",
                     "DS_ACCELERATOR", "CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "MARK")
            said = {"arguments": sys.argv[1:], **{name: os.environ[name] for name in names}}
            open(f"rank-{os.environ['RANK']}.json", "w").write(json.dumps(said))
            """
        )
    )
    job = rank_job(tmp_path, "said", num_processes=2)
    assert list(follow(LocalLauncher(), job))[-1] is JobState.SUCCEEDED
    said = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    for rank, facts in enumerate(said):
        assert facts["arguments"] == ["one", "two words"]
        assert (facts["RANK"], facts["LOCAL_RANK"], facts["WORLD_SIZE"]) == (
            str(rank),
            str(rank),
            "2",
        )
        assert facts["OMP_NUM_THREADS"] == "3"
        assert (facts["DS_ACCELERATOR"], facts["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")
        assert "tcache_count=0" in facts["GLIBC_TUNABLES"]
        assert facts["MARK"] == "here"


def test_a_rank_that_fails_fails_the_job(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    job = rank_job(tmp_path, "fails")
    assert list(follow(LocalLauncher(), job))[-1] is JobState.FAILED


def test_children_follow_a_parent_that_was_killed() -> None:
    child_code = (
        "import time; from svd.runtime.attached import die_with_parent; die_with_parent();"
        "print('up', flush=True); time.sleep(60)"
    )
    parent_code = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {child_code!r}], start_new_session=True);"
        "time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_code],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)
