"""`svd registry`: which versions there are, what they are worth, and which ones are in use."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from svd.registry.catalog import Catalog

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="The model's name.")]
Version = Annotated[
    str, typer.Argument(help="v0.1.2, a stage (candidate, staging, production), or latest.")
]
Stage = Annotated[
    Literal["candidate", "staging", "production"], typer.Argument(help="The stage to give.")
]
Approver = Annotated[str, typer.Option("--by", help="Who approves it (default: git's user.name).")]
Note = Annotated[str, typer.Option("--note", "-m", help="Why, in their words.")]
MODEL = "svd-i2v"


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app,
        name="registry",
        help="Versions: list, compare, promote, fetch.",
        rich_help_panel="Models",
    )


@app.command("list")
def list_versions(name: Name = MODEL) -> None:
    """List the versions, the newest first."""
    from rich.table import Table

    from svd.commands.terminal import open_console

    catalog = _catalog(name)
    if not catalog.versions:
        typer.echo(f"{name} has no version yet: `dvc repro register` makes one")
        return
    table = Table("version", "stages", "metrics", "registered", "code", "weights")
    for version in reversed(catalog.versions):
        table.add_row(*_row(catalog, version))
    open_console().print(table)


@app.command()
def show(version: Version = "latest", name: Name = MODEL) -> None:
    """Print everything that is known of a version, as JSON."""
    catalog = _catalog(name)
    typer.echo(catalog.record(catalog.resolve(version)).model_dump_json(indent=2))


@app.command()
def card(version: Version = "latest", name: Name = MODEL) -> None:
    """Print a version's model card, as Markdown."""
    from svd.registry.card import render_card

    catalog = _catalog(name)
    number = catalog.resolve(version)
    typer.echo(render_card(catalog.record(number), stages=catalog.stages_of(number)), nl=False)


@app.command()
def history(name: Name = MODEL) -> None:
    """Print who gave which stage to which version, and when."""
    from rich.table import Table

    from svd.commands.terminal import open_console

    catalog = _catalog(name)
    table = Table("when", "what", "version", "stage", "by", "note")
    for event in catalog.events:
        if event.kind == "register":
            continue  # the same moment's assignment to "candidate" says it
        record = catalog.promotion(event)
        what, by = (record.action, record.approver) if record else (event.kind, event.tag.tagger)
        note = record.note if record else ""
        version = catalog.version_of(event) or "?"
        table.add_row(_when(event.tag.time_s), what, version, event.stage or "", by, note)
    open_console().print(table)


@app.command()
def diff(before: Version, after: Version = "latest", name: Name = MODEL) -> None:
    """Print what changed between two versions: recipe, code, data, metrics."""
    from rich.table import Table

    from svd.commands.terminal import open_console
    from svd.registry.diff import diff_versions

    catalog = _catalog(name)
    old, new = catalog.resolve(before), catalog.resolve(after)
    changes = diff_versions(catalog, old, new)
    if not changes:
        typer.echo(f"{old} and {new} do not differ")
        return
    table = Table("part", "what", old, new)
    for change in changes:
        table.add_row(*change)
    open_console().print(table)


@app.command()
def promote(
    version: Version,
    stage: Stage,
    by: Approver = "",
    note: Note = "",
    replacing: Annotated[
        str | None,
        typer.Option(help="Refuse unless this version (or `none`) holds the stage now."),
    ] = None,
    name: Name = MODEL,
) -> None:
    """Give a stage to a version, if its gates pass; the approver is recorded."""
    from svd.registry.mirror import mirror_stage
    from svd.registry.publish import promote as promote_version

    catalog = _catalog(name)
    approver = by or _git_user(catalog)
    done = promote_version(
        catalog, version, stage, approver=approver, note=note, replacing=replacing
    )
    mirror_stage(done)
    before = f", in place of {done.replaced}" if done.replaced else ""
    typer.echo(f"{name} {done.version} is in {stage}{before} (approved by {approver})")
    _say_how_to_share(name)


@app.command()
def rollback(stage: Stage, by: Approver = "", note: Note = "", name: Name = MODEL) -> None:
    """Give a stage back to the version that held it before."""
    from svd.registry.mirror import mirror_stage
    from svd.registry.publish import roll_back

    catalog = _catalog(name)
    done = roll_back(catalog, stage, approver=by or _git_user(catalog), note=note)
    mirror_stage(done)
    typer.echo(f"{name} {done.version} is in {stage} again, in place of {done.replaced}")
    _say_how_to_share(name)


@app.command()
def fetch(
    version: Version = "production",
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("model"),
    repo: Annotated[
        str | None, typer.Option(help="Git address of the registry (default: this checkout).")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Where the bytes are (default: SVD_STORE, else this checkout)."),
    ] = None,
    name: Name = MODEL,
) -> None:
    """Fetch a version's files and check their hashes; needs no checkout, only two addresses."""
    import tempfile

    from svd.registry.fetch import fetch_version, read_remote_catalog
    from svd.runtime.storage import open_store

    bytes_at = open_store(store or _default_store())
    with tempfile.TemporaryDirectory() as folder:
        tags = Path(folder)
        catalog = _catalog(name) if repo is None else read_remote_catalog(repo, name, tags)
        fetched = fetch_version(catalog, version, bytes_at, out)
    typer.echo(f"{name} {fetched.version} is in {out}; every file has the hash of its record:")
    for file in fetched.files:
        typer.echo(f"  {file.sha256[:16]}  {file.path}")


def _catalog(name: str) -> "Catalog":
    from svd.registry.catalog import Catalog
    from svd.runtime.workspace import Workspace

    return Catalog.read(Workspace.find().root, name)


def _default_store() -> str:
    from svd.runtime.storage import default_store_uri
    from svd.runtime.workspace import Workspace

    return os.environ.get("SVD_STORE") or default_store_uri(Workspace.find())


def _row(catalog: "Catalog", version: str) -> tuple[str, ...]:
    from svd.errors import GateError

    registered = next(e for e in catalog.events if e.kind == "register" and e.version == version)
    stages, when = ", ".join(catalog.stages_of(version)), _when(registered.tag.time_s)
    try:
        record = catalog.record(version)
    except GateError:
        return (version, stages, "no record: registered by another tool", when, "", "")
    measured = [metric for metric in record.metrics if "(control" not in metric.name]
    metrics = "\n".join(f"{metric.name} {metric.value:.4g}" for metric in measured)
    commit = (record.code_commit or "")[:10]
    return (version, stages, metrics, when, commit, record.weights_sha256[:12])


def _when(time_s: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _git_user(catalog: "Catalog") -> str:
    return catalog.repo.setting("user.name") or ""


def _say_how_to_share(name: str) -> None:
    typer.echo(f"share it: git push origin 'refs/tags/{name}@*' 'refs/tags/{name}#*'")
