"""`svd evaluate`: the stage, and below it the scores of published benchmarks' tables."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from svd.commands.stage import HELP, DryRun, run_or_print_stage

app = typer.Typer(invoke_without_command=True)
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_commands(root: typer.Typer) -> None:
    """Hang the stage and its tables on the root."""
    root.add_typer(app, name="evaluate", help=HELP["evaluate"], rich_help_panel="Stages")


@app.callback()
def evaluate(context: typer.Context, dry_run: DryRun = False) -> None:
    """Sample videos from held-out first frames and measure them."""
    if context.invoked_subcommand is None:
        run_or_print_stage("evaluate", dry_run=dry_run)


@app.command("physics-iq-table")
def physics_iq_table(
    path: Annotated[Path, typer.Argument(help="CSV in the benchmark's own per-view format.")],
    as_json: JsonOutput = False,
) -> None:
    """Score a Physics-IQ table, as the benchmark's own program does."""
    from svd.evaluation.tables.physics_iq import score_physics_iq_table

    found = score_physics_iq_table(path)
    names = ("mse", "spatiotemporal_iou", "spatial_iou", "weighted_spatial_iou")
    rows = {
        name: {"model": ours, "between takes": real}
        for name, ours, real in zip(names, found.generated, found.variance, strict=True)
    }
    if as_json:
        _print_json({"score": found.score, "num_scenarios": found.num_scenarios, **rows})
        return
    typer.echo(f"Physics-IQ score {found.score:.2f} ({found.num_scenarios} scenarios)")
    for name, row in rows.items():
        typer.echo(f"  {name}: {row['model']:.4f}, between takes {row['between takes']:.4f}")


@app.command("vbench-table")
def vbench_table(
    path: Annotated[Path, typer.Argument(help="JSON of results that VBench wrote.")],
    suite: Annotated[Literal["vbench", "vbench-i2v"], typer.Option(help="Which suite.")] = "vbench",
    as_json: JsonOutput = False,
) -> None:
    """Total VBench's results: quality, semantic (or I2V) and total score."""
    from svd.evaluation.metrics.vbench import SUITES
    from svd.evaluation.tables.vbench import score_vbench_results

    found = score_vbench_results(path, suite)
    following = SUITES[suite].following_name
    rows = {"Quality": found.quality, following: found.following, "Total": found.total}
    if as_json:
        _print_json(rows)
        return
    for name, value in rows.items():
        shown = "not to be had: a dimension is missing" if value is None else f"{value:.2f}"
        typer.echo(f"{name}: {shown}")


def _print_json(tree: object) -> None:
    import json

    typer.echo(json.dumps(tree, indent=2))
