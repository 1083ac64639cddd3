"""`svd store`: make the store, check it, and start one of one's own."""

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from svd.errors import IntegrityError, MissingInputError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from svd.runtime.bucket_rules import BucketRules
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
def init(
    kms_key: Annotated[
        str | None,
        typer.Option(help="Encrypt with this KMS key (SSE-KMS); default the bucket's own key."),
    ] = None,
    keep_replaced_days: Annotated[
        int, typer.Option(min=1, help="How long a replaced or deleted object can be brought back.")
    ] = 30,
) -> None:
    """Make the store (SVD_STORE, default a folder below .svd/) and point DVC's remote at it.

    On S3 it also sets the bucket's rules: server-side encryption, versioning, and a lifecycle
    that clears away uploads that never ended and replaced objects after some time.
    """
    from svd.runtime.bucket_rules import BucketRules
    from svd.runtime.storage import default_store_uri
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    uri = default_store_uri(workspace)
    rules = BucketRules(kms_key=kms_key, keep_replaced_days=keep_replaced_days)
    refused = initialize_store(workspace, uri, rules)
    typer.echo(f"the store is {uri}; `dvc push` and `dvc pull` use {uri}/dvc")
    for sentence in refused:
        typer.echo(f"warning: {sentence}", err=True)


@app.command()
def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it, only say what would go.")
    ] = False,
    min_age_hours: Annotated[
        float, typer.Option(min=0, help="Keep what is younger: its version may be on its way.")
    ] = 24.0,
) -> None:
    """Clear the store of what no registered version and no dvc.lock names.

    Kept is what any registered version names, and what dvc.lock names in the working tree, on any
    branch and in any tag. DVC clears its local cache by the same rule. The store must be of this
    repository alone.
    """
    import time

    from svd.registry.garbage import collect_dvc_garbage, find_garbage
    from svd.runtime.storage import default_store_uri, open_store
    from svd.runtime.workspace import Workspace

    root = Workspace.find().root
    store = open_store(default_store_uri(Workspace.find()))
    found = find_garbage(store, root, now_s=time.time(), min_age_s=min_age_hours * 3600)
    for entry in found.unreferenced:
        if delete:
            store.delete(entry.key)
        typer.echo(
            f"{'deleted' if delete else 'unreferenced'}  {entry.size_bytes:>14,}  {entry.key}"
        )
    for line in collect_dvc_garbage(root, dry_run=not delete):
        typer.echo(f"dvc: {line}")
    verb = "deleted" if delete else "would go"
    typer.echo(
        f"{store.uri}: {found.num_kept} objects kept, {len(found.unreferenced)} {verb} "
        f"({found.size_bytes:,} bytes)" + ("" if delete else "; --delete deletes them")
    )


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


@app.command("copy-latents")
def copy_latents(
    uri: Annotated[
        str, typer.Argument(metavar="URI", help="s3://bucket/prefix or a folder; gets the copy.")
    ],
) -> None:
    """Copy data/latents to where ranks of a cluster read it: a stage's compute.data_store.

    Files are named by their content: what is there stays, and an interrupted copy goes on.
    """
    from svd.data.stream.copies import copy_dataset
    from svd.runtime.storage import open_store
    from svd.runtime.workspace import Workspace

    manifest, count = copy_dataset(Workspace.find().latents, open_store(uri))
    size_bytes = sum(shard.size_bytes for shard in manifest.shards)
    typer.echo(
        f"{uri} holds data set {manifest.content_hash()[:12]} ({len(manifest.shards)} shards, "
        f"{size_bytes:,} bytes); {count} files were copied"
    )
    typer.echo(f"to train from it: compute: {{data_store: {uri}}} in the stage's section")


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
    from svd.runtime.bucket_rules import BucketRules
    from svd.runtime.seaweed import start_seaweed

    server = start_seaweed(workspace.state / "services", workspace.state / "s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        os.environ.pop(name, None)
    os.environ.update(server.environment)
    os.environ["SVD_STORE"] = f"s3://{_BUCKET}"
    initialize_store(workspace, f"s3://{_BUCKET}", BucketRules())
    typer.echo(f'S3 at {server.endpoint}; use it with: eval "$(svd store env)"')


def initialize_store(workspace: "Workspace", uri: str, rules: "BucketRules") -> list[str]:
    """Make a bucket or folder and set DVC's remote, in .dvc/config.local.

    Returns what the server refused to set of the bucket's rules, as sentences.

    The local file keeps git clean: where bytes lie is a matter of the machine, not of the code.

    Raises:
        ConfigError: The URI is not one of a store.
        StoreError: The store cannot be made or written, or DVC refused.
    """
    from svd.runtime.storage import open_store
    from svd.runtime.storage_s3 import S3Store

    store, refused = open_store(uri), []
    if isinstance(store, S3Store):
        store.create_bucket()
        refused = store.apply_rules(rules)
    store.put_bytes(b"svd store\n", "svd-store")  # shows that it can be written
    if not (workspace.root / ".dvc").is_dir():
        return refused
    _dvc(workspace.root, "remote", "add", "--local", "--force", "--default", _REMOTE, f"{uri}/dvc")
    for option, variable in (
        ("endpointurl", "AWS_ENDPOINT_URL"),
        ("credentialpath", "AWS_SHARED_CREDENTIALS_FILE"),
    ):
        if isinstance(store, S3Store) and os.environ.get(variable):
            value = os.environ[variable]
            _dvc(workspace.root, "remote", "modify", "--local", _REMOTE, option, value)
    return refused


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
