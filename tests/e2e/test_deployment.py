"""`svd up`, `prefect deployment run svd/full-pipeline`, `svd down`: the doors people use."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svd.runtime.services import find_service
from svd.types.stage import STAGES
from tests.flows.conftest import instant_project

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("deployment")]

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with instant stages whose server and worker are up."""
    root = instant_project(tmp_path_factory.mktemp("deployment"))
    shutil.copy(ROOT / "prefect.yaml", root)
    for folder in ("flows", "infra"):
        (root / folder).symlink_to(ROOT / folder)
    try:
        up = svd(root, "up", "--port", "0")
        assert up.returncode == 0, up.stdout + up.stderr
        yield root
    finally:
        down = svd(root, "down")
    assert "stopped prefect-server" in down.stdout


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept['PATH']}"}


def svd(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "svd"), *arguments]
    return subprocess.run(
        command, cwd=root, env=environment(), capture_output=True, text=True, check=False
    )


def deploy(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "prefect"), "--no-prompt", "deployment", "run", "svd/full-pipeline"]
    return subprocess.run(
        [*command, "--watch", *arguments],
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_deployment_runs_every_stage_from_any_shell_in_the_folder(project):
    done = deploy(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "ran.log").read_text().split() == list(STAGES)
    assert "running" in svd(project, "status").stdout


def test_a_failed_stage_fails_the_run_and_a_new_run_goes_on_from_there(project):
    (project / "params.yaml").write_text("seed: 2\n")
    (project / "ran.log").unlink(missing_ok=True)
    (project / "fault-filter").write_text("svd: [ConfigError] filter is broken")
    failed = deploy(project, "--param", "to_stage=encode")
    assert failed.returncode == 1
    assert (project / "ran.log").read_text().split() == ["ingest", "clip", "annotate"]
    (project / "fault-filter").unlink()
    done = deploy(project, "--param", "to_stage=encode")
    assert done.returncode == 0
    ran = (project / "ran.log").read_text().split()
    assert ran == ["ingest", "clip", "annotate", "filter", "autoencoder", "encode"]


def test_the_services_listen_on_loopback_only(project):
    server = find_service(project / ".svd" / "services", "prefect-server")
    assert server is not None
    assert server.url.startswith("http://127.0.0.1:")
    port = f"{int(server.url.rpartition(':')[2]):04X}"
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port}")
    ]
    assert listening == [f"0100007F:{port}"]
