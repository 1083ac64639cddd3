"""`svd demo`: start what is needed, run the whole chain, say what to look at."""

import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from svd.errors import LaunchError

if TYPE_CHECKING:
    from svd.runtime.workspace import Workspace

DEPLOYMENT = "svd/full-pipeline"


def add_commands(root: typer.Typer) -> None:
    """Hang the command on the root."""
    root.command(rich_help_panel="Services")(demo)


def demo(
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Plan in params.yaml all that can be derived, and run that too."
        ),
    ] = False,
) -> None:
    """Run the full pipeline through a local Prefect deployment and say what to look at."""
    from svd.commands.services import prefect_env, start_prefect
    from svd.config.derive import DERIVABLE
    from svd.config.recipe import plan_derived
    from svd.runtime.services import find_service
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    if full:
        plan_derived(workspace.root, DERIVABLE)
        typer.echo(f"params.yaml now derives: {', '.join(DERIVABLE)}")
    started = time.monotonic()
    typer.echo("starting the Prefect server and a worker on loopback ...")
    url = start_prefect(workspace)
    worker = find_service(workspace.state / "services", "prefect-worker")
    if worker is None:
        raise LaunchError("the Prefect worker ended; `svd status` names its log")
    typer.echo(f"running deployment {DEPLOYMENT}; watch it at {url} or here:")
    with _Follower(Path(worker.log)):
        code = _run_deployment(workspace, prefect_env(workspace, url))
    if code:
        raise LaunchError(f"the run failed, see {url} and {worker.log}; `svd demo` resumes it")
    _say_what_to_look_at(workspace, url, minutes=(time.monotonic() - started) / 60)


def _run_deployment(workspace: "Workspace", env: dict[str, str]) -> int:
    from svd.commands.services import find_program

    command = [find_program("prefect"), "--no-prompt", "deployment", "run", DEPLOYMENT, "--watch"]
    done = subprocess.run(
        command,
        env=env,
        cwd=workspace.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        typer.echo(done.stdout, err=True)
    return done.returncode


class _Follower:
    """Prints what is appended to a log while the block runs."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = log.stat().st_size
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def _follow(self) -> None:
        with self._log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self._offset)
            while True:
                finishing = self._done.is_set()
                for line in file:
                    _show(line.rstrip())
                if finishing:
                    return
                time.sleep(0.3)


def _show(line: str) -> None:
    """Print a log line without Prefect's columns; its own chatter is left to the log."""
    parts = line.split(" | ", 2)
    if len(parts) == 3 and " - " in parts[2]:
        source, _, text = parts[2].partition(" - ")
        if "prefect." not in source:
            typer.echo(f"  {source.removeprefix('Task run ').strip(chr(39)):>16}  {text}")


def _say_what_to_look_at(workspace: "Workspace", url: str, *, minutes: float) -> None:
    from svd.commands.registry import list_versions

    typer.echo(f"\ndone in {minutes:.1f} min\n")
    report = workspace.report.relative_to(workspace.root)
    typer.echo(f"report      {report}   (open it in a browser)")
    typer.echo(f"Prefect UI  {url}   (runs, logs, artifacts; `svd down` stops it)")
    typer.echo("registry:")
    list_versions()
    picture = _some_frame(workspace)
    typer.echo("\nnext, after `source .venv/bin/activate`:")
    typer.echo(f"  svd sample --image {picture}   # animate a picture")
    typer.echo("  svd runs list            # the W&B runs, without a server")
    typer.echo("  svd registry promote latest staging --by you")


def _some_frame(workspace: "Workspace") -> str:
    """Return a picture that is there to try, or a name that says to bring one."""
    frames = sorted((workspace.evaluation / "samples").glob("*.png"))
    return str(frames[0].relative_to(workspace.root)) if frames else "picture.jpg"
