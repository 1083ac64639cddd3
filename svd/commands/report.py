"""`svd report`: the page people open."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from svd.evaluation.report.governance import RegisteredVersion
    from svd.runtime.workspace import Workspace

MODEL = "svd-i2v"  # the name that the recipe registers under, unless told otherwise


def add_commands(root: typer.Typer) -> None:
    """Hang the command on the root."""
    root.command(rich_help_panel="Results")(report)


def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    name: Annotated[str, typer.Option("--name", help="The model whose versions to list.")] = MODEL,
) -> None:
    """Write reports/index.html: everything this checkout's runs left, on one page."""
    from svd.evaluation.report.page import write_report
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    path = write_report(workspace, versions=_versions(workspace, name))
    typer.echo(f"{os.path.relpath(path)} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it:
        typer.launch(path.as_uri())


def _versions(workspace: "Workspace", name: str) -> tuple["RegisteredVersion", ...]:
    """Return what the registry holds, newest first; nothing outside a git repository."""
    from svd.errors import GateError
    from svd.evaluation.report.governance import RegisteredVersion
    from svd.registry.catalog import Catalog

    try:
        catalog = Catalog.read(workspace.root, name)
    except GateError:
        return ()
    return tuple(
        RegisteredVersion(version, catalog.stages_of(version))
        for version in reversed(catalog.versions)
    )
