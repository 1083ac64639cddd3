"""`svd store`: make the store, check it, and start one of one's own."""

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import typer

from svd.errors import IntegrityError, MissingInputError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from svd.runtime.workspace import Workspace

app = typer.Typer(no_args_is_help=True)
_REMOTE = "store"
_BUCKET = "svd"  # of the local server


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app, name="store", help="The store of models and data.", rich_help_panel="Services"
    )


@app.command()
def init() -> None:
    """Make the store (SVD_STORE, default a folder below .svd/) and point DVC's remote at it."""
    from svd.runtime.storage import default_store_uri
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    uri = default_store_uri(workspace)
    initialize_store(workspace, uri)
    typer.echo(f"the store is {uri}; `dvc push` and `dvc pull` use {uri}/dvc")


@app.command()
def verify() -> None:
    """Read every object named by its content again and compare it with its name."""
    from svd.runtime.storage import default_store_uri, open_store, verify_objects
    from svd.runtime.workspace import Workspace

    store = open_store(default_store_uri(Workspace.find()))
    report = verify_objects(store)
    typer.echo(f"{store.uri}: {report.num_objects} objects, {report.size_bytes:,} bytes")
    for key in report.damaged:
        typer.echo(f"damaged: {key}")
    if report.damaged:
        raise IntegrityError(f"{store.uri}: {len(report.damaged)} objects are damaged")


@app.command()
def env() -> None:
    """Print shell lines that point AWS clients and svd at the local S3 server."""
    from svd.runtime.seaweed import SERVICE, client_environment
    from svd.runtime.services import find_service
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    server = find_service(workspace.state / "services", SERVICE)
    if server is None or server.url is None:
        raise MissingInputError("no local S3 server runs: `svd up --s3` starts one")
    # Keys in the environment would win over the file that the server's keys are in.
    typer.echo("unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE")
    settings = {
        **client_environment(workspace.state / "s3", server.url),
        "SVD_STORE": f"s3://{_BUCKET}",
    }
    for name, value in settings.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def start_local_s3(workspace: "Workspace") -> None:
    """Start the local S3 server where it does not run, and make the store on it."""
    from svd.runtime.seaweed import start_seaweed

    server = start_seaweed(workspace.state / "services", workspace.state / "s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        os.environ.pop(name, None)
    os.environ.update(server.environment)
    os.environ["SVD_STORE"] = f"s3://{_BUCKET}"
    initialize_store(workspace, f"s3://{_BUCKET}")
    typer.echo(f'S3 at {server.endpoint}; use it with: eval "$(svd store env)"')


def initialize_store(workspace: "Workspace", uri: str) -> None:
    """Make a bucket or folder and set DVC's remote, in .dvc/config.local.

    The local file keeps git clean: where bytes lie is a matter of the machine, not of the code.

    Raises:
        ConfigError: The URI is not one of a store.
        StoreError: The store cannot be made or written, or DVC refused.
    """
    from svd.runtime.storage import open_store
    from svd.runtime.storage_s3 import S3Store

    store = open_store(uri)
    if isinstance(store, S3Store):
        store.create_bucket()
    store.put_bytes(b"svd store\n", "svd-store")  # shows that it can be written
    if not (workspace.root / ".dvc").is_dir():
        return
    _dvc(workspace.root, "remote", "add", "--local", "--force", "--default", _REMOTE, f"{uri}/dvc")
    for option, variable in (
        ("endpointurl", "AWS_ENDPOINT_URL"),
        ("credentialpath", "AWS_SHARED_CREDENTIALS_FILE"),
    ):
        if isinstance(store, S3Store) and os.environ.get(variable):
            value = os.environ[variable]
            _dvc(workspace.root, "remote", "modify", "--local", _REMOTE, option, value)


def _dvc(root: "Path", *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StoreError(f"dvc {' '.join(arguments[:2])} failed: {done.stderr.strip()[-400:]}")
