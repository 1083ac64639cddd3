"""`svd weights`: networks behind metrics, by pinned hash, and what annotators need of yours."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Names from `svd weights list`; none means all that need no opt-in."),
]


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app,
        name="weights",
        help="Weights of metric networks (list, fetch, verify) and of annotators (list).",
        rich_help_panel="Results",
    )


@app.command("list")
def list_weights() -> None:
    """List the weights, what they are for, and whether they are here."""
    from rich.console import Console
    from rich.table import Table

    from svd.evaluation.extractors.catalogue import CATALOGUE
    from svd.models.critics.published import converted_path

    table = Table("name", "for", "state", "download", "licence", "source")
    for weights in CATALOGUE.values():
        here = converted_path(weights, _cache()).is_file()
        table.add_row(
            weights.name,
            weights.purpose,
            "here" if here else f"not fetched{', only by name' if weights.opt_in else ''}",
            f"{weights.download_mb} MB",
            weights.licence,
            weights.source,
        )
    Console().print(table)
    _list_heads()


def _list_heads() -> None:
    """Print the heads on CLIP's embedding; people download them, so an address is one line."""
    from svd.curation.annotate.heads import PUBLISHED
    from svd.curation.annotate.weights import find_head
    from svd.runtime.workspace import Workspace

    folder = Workspace.find().root / "weights"
    typer.echo("Heads on CLIP's embedding, for svd annotate; download them into weights/:")
    for head in PUBLISHED.values():
        state = "here" if find_head(head, folder) else "not here"
        typer.echo(f"  {head.name}: {state}; reads {head.tower.name}; {head.licence}")
        typer.echo(f"    {head.url}")


@app.command()
def fetch(names: Names = None) -> None:
    """Fetch and convert weights; what is here and intact is left alone."""
    from svd.evaluation.extractors.catalogue import CATALOGUE
    from svd.models.critics.published import converted_path, find_weights, load_weights

    for name in names or [name for name, weights in CATALOGUE.items() if not weights.opt_in]:
        weights = find_weights(CATALOGUE, name)
        if weights.opt_in:
            typer.echo(f"{name}: {weights.licence}")
        load_weights(weights, _cache())
        typer.echo(f"{name}: {converted_path(weights, _cache())}")


@app.command()
def verify(names: Names = None) -> None:
    """Read fetched weights again and compare every byte with the pinned hash."""
    from svd.errors import IntegrityError
    from svd.evaluation.extractors.catalogue import CATALOGUE
    from svd.models.critics.published import converted_path, find_weights, is_intact

    damaged = []
    for name in names or list(CATALOGUE):
        weights = find_weights(CATALOGUE, name)
        if not converted_path(weights, _cache()).is_file():
            typer.echo(f"{name}: not fetched")
        elif is_intact(weights, _cache()):
            typer.echo(f"{name}: intact, {weights.content_sha256}")
        else:
            damaged.append(name)
    if damaged:
        raise IntegrityError(
            f"damaged in the cache: {', '.join(damaged)}; `svd weights fetch` replaces them"
        )


def _cache() -> Path:
    from svd.runtime.workspace import Workspace

    return Workspace.find().state / "cache"
