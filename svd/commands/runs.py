"""`svd runs`: look at what was tracked, without a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from svd.commands.runs_page import Difference
    from svd.runtime.runs import Run

app = typer.Typer(no_args_is_help=True)
RunName = Annotated[str, typer.Argument(help="A run's id, or the beginning of it, e.g. a stage.")]
Html = Annotated[Path | None, typer.Option("--html", help="Also write one self-contained page.")]
_HEADLINES = 3  # results shown per run in the list


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app, name="runs", help="What was tracked: list, show, compare.", rich_help_panel="Models"
    )


@app.command("list")
def list_runs(
    group: Annotated[
        str | None, typer.Option(help="Only runs of this pipeline run (or its beginning).")
    ] = None,
) -> None:
    """List the runs below wandb/, the newest first."""
    from rich.table import Table

    from svd.commands.runs_page import total
    from svd.commands.terminal import open_console

    runs = [run for run in _runs() if group is None or run.group.startswith(group)]
    if not runs:
        typer.echo("no run yet: every `svd <stage>` tracks one")
        return
    table = Table(
        *("run", "pipeline run", "state", "started", "seconds", "attempts"),
        *("device-h", "cost", "results"),
    )
    for run in runs:
        headlines = [key for key in run.summary if key not in run.curves][:_HEADLINES]
        table.add_row(
            run.run_id,
            run.group[:12],
            run.state,
            run.started_at.removesuffix("+00:00"),
            f"{run.busy_s:.0f}",
            str(len(run.attempts)),
            _number(run.device_hours),
            _number(run.cost),
            "\n".join(f"{key} {_short(run.summary[key])}" for key in headlines),
        )
    table.add_section()
    hours, costs = total(run.device_hours for run in runs), total(run.cost for run in runs)
    table.add_row("all of them", *[""] * 5, _number(hours), _number(costs), "")
    open_console().print(table)


@app.command()
def show(run: RunName, html: Html = None) -> None:
    """Print what a run was run with and what came out."""
    from svd.commands.runs_page import differences, table
    from svd.runtime.runs import find_run

    found = find_run(_runs(), run)
    typer.echo(
        f"{found.run_id}: {found.state}, {found.busy_s:.0f} s in {len(found.attempts)} attempts"
        + (f", {found.device_hours:.4g} device-hours" if found.device_hours is not None else "")
        + (f", cost {found.cost:.4g}" if found.cost is not None else "")
    )
    for attempt in found.attempts:
        typer.echo(f"  {attempt.started_at}  {attempt.folder}")
    _print("results", [found], table([found.summary]))
    ends = {
        key: f"{points[0][1]:.4g} -> {points[-1][1]:.4g}" for key, points in found.curves.items()
    }
    _print("curves, first -> last", [found], table([ends]))
    _print("settings", [found], differences([found.config]))
    _write(html, [found])


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more run ids, or their beginnings.")],
    html: Html = None,
) -> None:
    """Print where runs differ: settings and results side by side."""
    from svd.commands.runs_page import differences, spent, table
    from svd.errors import ConfigError
    from svd.runtime.runs import find_run

    if len(runs) < 2:
        raise ConfigError("svd runs compare needs two runs or more")
    known = _runs()
    found = [find_run(known, run) for run in runs]
    _print("settings that differ", found, differences([run.config for run in found]))
    _print("results", found, table([{**spent(run), **run.summary} for run in found]))
    _write(html, found)


@app.command()
def workspace(
    entity: Annotated[str, typer.Option(help="User or team on the W&B server.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print its definition; send nothing.")
    ] = False,
) -> None:
    """Save the view that a team opens on the W&B server: curves, samples, speed, cost per run.

    Runs are grouped by pipeline run. It needs WANDB_MODE=online; the project is WANDB_PROJECT.
    """
    import json
    import os

    from svd.commands.runs_workspace import build_workspace, definition
    from svd.errors import ConfigError
    from svd.runtime.tracking import tracking_mode

    view = build_workspace(entity, os.environ.get("WANDB_PROJECT", "svd"))
    if dry_run:
        typer.echo(json.dumps(definition(view), indent=2))
        return
    mode = tracking_mode()
    if mode != "online" or not entity:
        raise ConfigError(
            f"WANDB_MODE={mode}, --entity={entity or 'none'}: saving a view needs online and the "
            "name of a user or team; --dry-run prints it"
        )
    typer.echo(f"saved: {view.save().url}")  # type: ignore[no-untyped-call]


def _runs() -> "list[Run]":
    from svd.runtime.runs import read_runs
    from svd.runtime.workspace import Workspace

    return read_runs(Workspace.find())


def _print(title: str, runs: "list[Run]", rows: "list[Difference]") -> None:
    from rich.table import Table

    from svd.commands.terminal import open_console

    if not rows:
        return
    shown = Table("", *(run.run_id for run in runs), title=title)
    for row in rows:
        shown.add_row(row.key, *row.values)
    open_console().print(shown)


def _write(html: Path | None, runs: "list[Run]") -> None:
    from svd.commands.runs_page import render_page
    from svd.runtime.workspace import Workspace

    if html is None:
        return
    html.write_text(render_page(runs, Workspace.find().root), encoding="utf-8")
    typer.echo(f"wrote {html}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
