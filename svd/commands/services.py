"""`svd up|down|status`: the local Prefect server and worker, and an S3 server if asked for."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from svd.errors import LaunchError

if TYPE_CHECKING:
    from svd.runtime.workspace import Workspace

POOL: Final = "local-process"
PORT: Final = 4200  # Prefect's own default
QUIET: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_LOGGING_COLORS": "false",
    # A run whose heartbeat stops for `within` seconds of the reaper automation is marked Crashed.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # How often a stage that waits for a GPU asks; Prefect's own 30 s would be most of a short one.
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
    # How often the worker looks for runs; Prefect's own 10 s would be most of one that skips all.
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    for command in (up, down, status):
        root.command(rich_help_panel="Services")(command)


def up(
    s3: Annotated[bool, typer.Option("--s3", help="Also start an S3 server (SeaweedFS).")] = False,
    port: Annotated[int, typer.Option(help="Port of the Prefect server on 127.0.0.1.")] = PORT,
) -> None:
    """Start the Prefect server and a worker on loopback, and register the deployments.

    Running it again starts what is missing. It writes prefect.toml, so that `prefect` commands
    typed in this folder reach this server.
    """
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    if s3:
        from svd.commands.store import start_local_s3

        start_local_s3(workspace)
    start_prefect(workspace, port=port)
    status()


def down() -> None:
    """Stop everything that `svd up` started."""
    from svd.runtime.services import stop_service
    from svd.runtime.workspace import Workspace

    folder = _folder(Workspace.find())
    stopped = [
        name for name in ("prefect-worker", "prefect-server", "s3") if stop_service(folder, name)
    ]
    for name in stopped:
        typer.echo(f"stopped {name}")
    if not stopped:
        typer.echo("nothing was running")


def status() -> None:
    """Say what runs, where, and whether deployments are registered."""
    from rich.console import Console
    from rich.table import Table

    from svd.runtime.services import find_service
    from svd.runtime.workspace import Workspace

    folder = _folder(Workspace.find())
    table = Table("service", "state", "address", "log")
    for name in ("prefect-server", "prefect-worker", "s3"):
        service = find_service(folder, name)
        if service is None:
            table.add_row(name, "stopped", "", "")
        else:
            log = os.path.relpath(service.log)
            table.add_row(name, f"running (pid {service.pid})", service.url or "", log)
    Console().print(table)


def start_prefect(workspace: "Workspace", *, port: int = PORT) -> str:
    """Start server and worker where they do not run; return the server's address."""
    from svd.runtime.services import find_service, free_port, start_service

    folder = _folder(workspace)
    server = find_service(folder, "prefect-server")
    url = f"http://127.0.0.1:{free_port(port)}" if server is None else server.url
    if url is None:
        raise LaunchError("the Prefect server has no address; run `svd down` and `svd up`")
    if server is not None and find_service(folder, "prefect-worker") is not None:
        return url
    env = prefect_env(workspace, url)
    with _meanwhile([sys.executable, "-m", "flows.setup"], env=env, cwd=workspace.root):
        if server is None:
            _start_server(workspace, url, env)
    command = [find_program("prefect"), "worker", "start", "--pool", POOL, "--type", "process"]
    start_service(folder, "prefect-worker", command, env=env, cwd=workspace.root)
    return url


def prefect_env(workspace: "Workspace", url: str) -> dict[str, str]:
    """Return the environment in which the server, the worker and their runs live."""
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        **QUIET,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_HOME": str(workspace.state / "prefect"),
        "SVD_ROOT": str(workspace.root),
    }


def _start_server(workspace: "Workspace", url: str, env: dict[str, str]) -> None:
    from svd.runtime.services import start_service

    (workspace.root / "prefect.toml").write_text(
        "# Written by `svd up`: prefect commands typed here reach its server.\n"
        f'[api]\nurl = "{url}/api"\n',
        encoding="utf-8",
    )
    command = [find_program("prefect"), "server", "start", "--host", "127.0.0.1"]
    start_service(
        _folder(workspace),
        "prefect-server",
        [*command, "--port", url.rpartition(":")[2]],
        env=env,
        cwd=workspace.root,
        url=url,
        ready=lambda: _answers(f"{url}/api/health"),
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  (our own loopback address)
            return json.load(answer) is True
    except OSError:
        return False


@contextlib.contextmanager
def _meanwhile(command: list[str], *, env: dict[str, str], cwd: Path) -> Iterator[None]:
    """Run a command while the block runs, and wait for its end.

    Raises:
        LaunchError: It failed; the message has what it said last.
    """
    out = subprocess.PIPE
    with subprocess.Popen(
        command, env=env, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield
        except BaseException:
            process.kill()
            raise
        said, _ = process.communicate()
    if process.returncode:
        raise LaunchError(f"{' '.join(command[1:4])} failed: {said[-800:]}")


def find_program(name: str) -> str:
    """Return the path of a program, preferring the one installed beside this Python."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise LaunchError(f"{name} is not installed; run `make install`")
    return found


def _folder(workspace: "Workspace") -> Path:
    return workspace.state / "services"
