"""The whole platform at once, broken while it runs: Prefect, Ray, Slurm, a real S3 server, DVC.

A run of every branch whose Ray worker, S3 server, Prefect worker and flow are killed ends, when it
is run again, in the dvc.lock of an unbroken one; and of the keys that it ran with, none is found in
anything it left.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from svd.runtime.seaweed import S3Server, start_seaweed, stop_seaweed
from svd.runtime.services import find_service
from svd.types.stage import STAGES, TRAINING_STAGES
from tests.e2e.micro import micro_project
from tests.faults.slurm_cluster import SETUP, SlurmCluster, slurm_cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.timeout(3600),
]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WANDB_KEY = "5ec2e7" + "ab" * 17
NOTIFY_TOKEN = "notify-token-3f9a2c71"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Storage"]:
    storage = Storage(tmp_path_factory.mktemp("s3"))
    yield storage
    stop_seaweed(storage.services, grace_s=0.5)


class Storage:
    """The S3 server, which can be killed and started again at the same address."""

    def __init__(self, root: Path) -> None:
        self.services, self.folder = root / "services", root / "data"
        self.server: S3Server = start_seaweed(self.services, self.folder, port=0)
        text = (self.folder / "credentials").read_text()
        self.key, self.secret = (line.split(" = ")[1] for line in text.splitlines()[1:])

    def kill_and_restart(self) -> None:
        os.killpg(self.server.service.pid, signal.SIGKILL)
        port = int(self.server.endpoint.rpartition(":")[2])
        time.sleep(3)
        self.server = start_seaweed(self.services, self.folder, port=port)
        assert self.server.endpoint.endswith(f":{port}")

    @property
    def environment(self) -> dict[str, str]:
        """As a careless person sets it: the keys themselves, for every process to see."""
        return {
            "AWS_ENDPOINT_URL": self.server.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "SVD_STORE": "s3://svd",
        }


@pytest.fixture(scope="module")
def environment(cluster: SlurmCluster, s3: Storage) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {
        **kept,
        **s3.environment,
        "PATH": f"{BIN}{os.pathsep}{cluster.bin}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WANDB_MODE": "offline",
        "WANDB_API_KEY": WANDB_KEY,
        "SVD_NOTIFY_URL": f"http://127.0.0.1:9/hooks/{NOTIFY_TOKEN}",
        "DVC_NO_ANALYTICS": "1",
    }


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project: every branch, curation on Ray, training under Slurm, live state on S3."""
    root = micro_project(tmp_path_factory.mktemp("platform") / "start", derives=True)
    recipe = yaml.safe_load((root / "params.yaml").read_text())
    recipe["engine"] = {"kind": "ray", "num_workers": 2}
    for name in {stage.partition("@")[0] for stage in TRAINING_STAGES}:
        section = recipe[name]
        nodes = section["compute"]["num_processes"]
        launcher = {"kind": "slurm", "nodes": nodes, "gpus_per_node": 0, "setup": SETUP}
        section["compute"] |= {"launcher": launcher, "threads_per_process": 1}
        section["checkpoint"]["store"] = f"s3://svd/live/{name}"
    (root / "params.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    shutil.copy(ROOT / "prefect.yaml", root)
    for folder in ("flows", "infra"):
        (root / folder).symlink_to(ROOT / folder)
    git(root, "add", ".")
    git(root, "commit", "-qm", "recipe")
    return root


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def clone(start: Path, name: str, env: dict[str, str]) -> Path:
    root = start.parent / name
    git(start.parent, "clone", "-q", str(start), str(root))
    call(root, env, "svd", "store", "init")
    return root


def call(root: Path, env: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


class Run(threading.Thread):
    """A run of the deployment, watched from a thread."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.root, self.env = root, env
        self.code: int | None = None
        self.said = ""

    def run(self) -> None:
        command = [str(BIN / "prefect"), "--no-prompt", "deployment", "run", "svd/full-pipeline"]
        command += ["--param", f"to_stage={STAGES[-1]}", "--watch"]
        done = subprocess.run(
            command, cwd=self.root, env=self.env, capture_output=True, text=True, check=False
        )
        self.said, self.code = done.stdout + done.stderr, done.returncode


def wait_for(run: Run, reached: Callable[[], bool], *, within_s: float = 1500) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert run.code is None, f"the run ended too soon: {run.said[-3000:]}"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def kill_a_ray_worker(root: Path) -> bool:
    """Kill one process that computes a unit of curation for a project; False if there is none."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "ray::_Host" in " ".join(process.cmdline()) and is_below(process, root):
                process.kill()
                return True
    return False


def is_below(process: psutil.Process, root: Path) -> bool:
    return any(str(root) in parent.cwd() for parent in [process, *process.parents()])


def kill_the_flow(root: Path) -> None:
    """Kill Prefect's worker and the flow that it runs; the stage's own processes live on."""
    worker = find_service(root / ".svd" / "services", "prefect-worker")
    assert worker is not None
    family = psutil.Process(worker.pid).children(recursive=True)
    flows = [one for one in family if one.name().startswith("python") and not is_stage(one)]
    for process in [psutil.Process(worker.pid), *flows]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def is_stage(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        lines = [" ".join(one.cmdline()) for one in (process, *process.parents())]
        return any("--wait-for-lock" in line for line in lines)
    return True


@pytest.fixture(scope="module")
def unbroken(start: Path, environment: dict[str, str]) -> Path:
    root = clone(start, "unbroken", environment)
    call(root, environment, sys.executable, "-m", "dvc", "repro", "-q")
    return root


@pytest.fixture(scope="module")
def broken(start: Path, environment: dict[str, str], s3: Storage) -> Iterator[Path]:
    root = clone(start, "broken", environment)
    try:
        call(root, environment, "svd", "up", "--port", "0")
        first = Run(root, environment)
        first.start()
        wait_for(first, lambda: kill_a_ray_worker(root))
        wait_for(first, (root / "models" / "pretrain-image" / "model.json").is_file)
        s3.kill_and_restart()
        wait_for(first, (root / "models" / "pretrain-video" / "model.json").is_file)
        kill_the_flow(root)
        call(root, environment, "svd", "up", "--port", "0")
        second = Run(root, environment)
        second.start()
        second.join(timeout=2400)
        assert second.code == 0, second.said[-6000:]
        yield root
    finally:
        call(root, environment, "svd", "down")


def test_a_run_that_lost_its_workers_and_its_store_ends_in_the_same_lock(
    broken: Path, unbroken: Path
) -> None:
    locks = [yaml.safe_load((root / "dvc.lock").read_text()) for root in (broken, unbroken)]
    ours, theirs = (lock["stages"] for lock in locks)
    assert set(ours) == set(theirs) == set(STAGES)
    assert [name for name in STAGES if ours[name] != theirs[name]] == []


def test_no_secret_is_in_anything_that_a_run_leaves(broken: Path, s3: Storage) -> None:
    secrets = [word.encode() for word in (s3.key, s3.secret, WANDB_KEY, NOTIFY_TOKEN)]
    looked_at, found = 0, []
    for path in left_behind(broken):
        with contextlib.suppress(FileNotFoundError):  # Ray's, of a test beside this one
            content = path.read_bytes()
            looked_at += 1
            found += [str(path) for secret in secrets if secret in content]
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"],
        cwd=broken, check=True, capture_output=True,
    ).stdout  # fmt: skip
    found += ["git objects" for secret in secrets if secret in objects]
    assert found == []
    names = {path.name for path in left_behind(broken)}
    assert {"prefect.db", "prefect-worker.log", "prefect-server.log", "dvc.lock"} <= names
    assert any(path.suffix == ".wandb" for path in left_behind(broken))
    assert any(path.name.startswith("slurm-") for path in left_behind(broken))
    assert looked_at > 500
    # The address is there, as a secret of Prefect's that is encrypted.
    assert b"svd-failure-notice" in (broken / ".svd" / "prefect" / "prefect.db").read_bytes()


def left_behind(root: Path) -> Iterator[Path]:
    """Every file of a project: data, models, logs, W&B, Prefect's database, DVC's and git's."""
    for folder in (root, *ray_sessions(since=root.stat().st_ctime)):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path


def ray_sessions(*, since: float) -> list[Path]:
    """Where Ray's own logs lie."""
    found = Path(tempfile.gettempdir(), "ray").glob("session_2*")
    return [path for path in found if path.is_dir() and path.stat().st_mtime > since]
