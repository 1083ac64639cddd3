"""`svd up`, `prefect deployment run svd/full-pipeline`, `svd down`: the doors people use."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest

from svd.runtime.services import find_service
from svd.types.stage import CHAIN, STAGES
from tests.flows.conftest import instant_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

T = TypeVar("T")
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


class Inbox(ThreadingHTTPServer):
    """Takes messages on loopback, as the address in SVD_NOTIFY_URL would."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.messages: list[str] = []


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.messages.append(body["text"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with Inbox() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, inbox: Inbox) -> Iterator[Path]:
    """A project with instant stages whose server and worker are up."""
    root = instant_project(tmp_path_factory.mktemp("deployment"), planned=[])
    os.environ["SVD_NOTIFY_URL"] = f"http://127.0.0.1:{inbox.server_port}/hook/token-1234"
    shutil.copy(ROOT / "prefect.yaml", root)
    for folder in ("flows", "infra"):
        (root / folder).symlink_to(ROOT / folder)
    try:
        up = svd(root, "up", "--port", "0")
        assert up.returncode == 0, up.stdout + up.stderr
        yield root
    finally:
        del os.environ["SVD_NOTIFY_URL"]
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


def deploy(
    root: Path, *arguments: str, name: str = "full-pipeline"
) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "prefect"), "--no-prompt", "deployment", "run", f"svd/{name}"]
    return subprocess.run(
        [*command, "--watch", *arguments],
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_deployment_runs_every_stage_from_any_shell_in_the_folder(project):
    done = deploy(project)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = (project / "ran.log").read_text().split()
    assert sorted(ran) == sorted(STAGES)
    assert [stage for stage in ran if stage in CHAIN] == list(CHAIN)
    assert "running" in svd(project, "status").stdout


def test_a_failed_stage_is_told_and_a_new_run_goes_on_from_there(project, inbox):
    (project / "params.yaml").write_text("seed: 2\n")
    (project / "ran.log").unlink(missing_ok=True)
    (project / "fault-filter").write_text("svd: [ConfigError] filter is broken")
    failed = deploy(project, "--param", "to_stage=encode")
    assert failed.returncode == 1
    assert (project / "ran.log").read_text().split() == ["ingest", "clip", "annotate"]
    told = wait_for(lambda: inbox.messages)
    assert "svd Failed" in told[0]
    assert "ConfigError" in told[0]
    (project / "fault-filter").unlink()
    done = deploy(project, "--param", "to_stage=encode")
    assert done.returncode == 0
    ran = (project / "ran.log").read_text().split()
    assert ran == ["ingest", "clip", "annotate", "filter", "autoencoder", "encode"]


def test_an_address_that_holds_a_token_is_shown_nowhere(project):
    shown = prefect(project, "block", "inspect", "custom-webhook/svd-failure-notice")
    assert "svd-failure-notice" in shown
    logs = "".join(path.read_text() for path in (project / ".svd" / "services").glob("*.log"))
    assert "token-1234" not in shown + logs


def test_stages_on_a_gpu_share_one_limit(project):
    server = find_service(project / ".svd" / "services", "prefect-server")
    with urllib.request.urlopen(f"{server.url}/api/v2/concurrency_limits/gpu") as answer:
        assert json.load(answer)["limit"] == 1


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("nightly", [(), ("--param", "checkout=null")], ids=["apart", "same"])
def test_nightly_curation_and_full_pipeline_run_at_once(project, nightly):
    """In checkouts of their own, or in one: both end well, and DVC finds everything in order."""
    (project / "params.yaml").write_text(f"seed: {10 + len(nightly)}\n")
    with ThreadPoolExecutor(2) as pool:
        full = pool.submit(deploy, project)
        night = pool.submit(deploy, project, *nightly, name="nightly-curation")
    for done in (full.result(), night.result()):
        assert done.returncode == 0, done.stdout + done.stderr
    places = [project] if nightly else [project, project / ".svd/checkouts/nightly-curation"]
    for place, last in zip(places, ("register", "encode"), strict=False):
        said = dvc(place, "repro", "--dry", last)
        assert "Running stage" not in said, said
        wanted = dvc(place, "status", *CHAIN[: CHAIN.index(last) + 1])
        assert "up to date" in wanted, wanted


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cancelled_run_leaves_no_process_and_a_new_one_goes_on(project):
    (project / "params.yaml").write_text("seed: 20\n")
    (project / "meet-clip").write_text("nobody")
    command = [str(BIN / "prefect"), "--no-prompt", "deployment", "run", "svd/full-pipeline"]
    subprocess.run(command, cwd=project, env=environment(), check=True, capture_output=True)
    wait_for(lambda: stages_of(project), within_s=120)
    listed = prefect(project, "flow-run", "ls", "--state", "Running", "-o", "json")
    (run,) = [one["id"] for one in json.loads(listed) if one["deployment_id"]]
    prefect(project, "flow-run", "cancel", run)
    wait_for(lambda: not stages_of(project), within_s=90)
    wait_for(lambda: "Cancelled" in prefect(project, "flow-run", "inspect", run), within_s=90)
    (project / "meet-clip").unlink()
    done = deploy(project, "--param", "to_stage=clip")
    assert done.returncode == 0, done.stdout + done.stderr


def stages_of(project: Path) -> list[int]:
    """Processes of the hanging stage."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_stage = b"stage.py\0clip" in (process / "cmdline").read_bytes()
            if is_stage and (process / "cwd").resolve() == project.resolve():
                found.append(int(process.name))
    return found


def wait_for(look: Callable[[], T], *, within_s: float = 60.0) -> T:
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.3)
    return found


def prefect(root: Path, *arguments: str) -> str:
    command = [str(BIN / "prefect"), *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
