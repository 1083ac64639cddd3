"""`svd curate`: questions about a curated set, and repairs of it, beside the stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from svd.commands.threshold_study import study

if TYPE_CHECKING:
    from rich.table import Table

    from svd.types.camera import Confusion
    from svd.types.curation import SweepReport

app = typer.Typer(no_args_is_help=True)
app.command()(study)
_MAX_ROWS_SHOWN = 64
RetryableStage = Annotated[
    Literal["ingest", "clip", "annotate"],
    typer.Argument(help="A stage whose files or clips may fail one by one."),
]
Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--score",
        help="Sweep this score; repeat for more. NAME drops the lowest, NAME:highest the highest. "
        "Default: the scores with a threshold in the recipe.",
    ),
]
Shares = Annotated[
    list[float] | None,
    typer.Option("--share", help="Share to drop; repeat. Default: 0.125, 0.25, 0.5 (the paper's)."),
]
Out = Annotated[Path | None, typer.Option(help="Folder to write (default: reports/sweep).")]
TablePath = Annotated[
    Path | None,
    typer.Option("--table", help="Score table (default: data/annotations/annotations.parquet)."),
]
All = Annotated[bool, typer.Option("--all", help="Print every combination, however many.")]


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app,
        name="curate",
        help="Curated clips: what other thresholds would keep; what failed, and another try at it.",
        rich_help_panel="Results",
    )


@app.callback()
def group() -> None:
    """Questions about the curated clips, and repairs of a curation run."""


@app.command()
def failures() -> None:
    """Show what ingest, clip and annotate have no result for, and why."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from svd.curation.retry import RETRY_STAGES, failures_of
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    table = Table("stage", "reason", "number", "for example")
    for stage in RETRY_STAGES:
        failed = failures_of(stage, workspace)
        for reason, number in Counter(item.reason for item in failed).most_common():
            example = next(item for item in failed if item.reason == reason)
            table.add_row(stage, reason, f"{number}", f"{example.what}: {example.detail}")
    Console().print(table if table.row_count else "nothing failed")


@app.command()
def retry(stage: RetryableStage) -> None:
    """Try again what failed in a stage; what it has done already is kept.

    Afterwards `dvc repro` brings the stages behind it up to date.
    """
    import subprocess
    import sys

    from svd.commands.stage import run_stage
    from svd.curation.retry import failures_of, prepare_retry
    from svd.errors import StoreError
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    before = len(failures_of(stage, workspace))
    if not before:
        typer.echo(f"nothing failed in {stage}")
        return
    prepare_retry(stage, workspace)
    run_stage(stage)
    left = len(failures_of(stage, workspace))
    typer.echo(f"{stage}: {before - left} of {before} failures mended, {left} left")
    if (workspace.root / ".dvc").is_dir():
        command = [sys.executable, "-m", "dvc", "commit", "--force", stage]
        done = subprocess.run(
            command, cwd=workspace.root, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StoreError(f"dvc commit {stage} failed: {done.stderr.strip()[-400:]}")


@app.command()
def forget(stage: RetryableStage) -> None:
    """Let a killed run, when it goes on, try again what hung or crashed before."""
    from svd.curation.retry import forget_failures
    from svd.runtime.workspace import Workspace

    num = forget_failures(stage, Workspace.find())
    typer.echo(f"{stage}: {num} units are off the poison list")


@app.command()
def sweep(
    scores: Scores = None,
    shares: Shares = None,
    out: Out = None,
    table: TablePath = None,
    show_all: All = False,
) -> None:
    """Show how many clips and hours survive each combination of thresholds."""
    from rich.console import Console

    from svd.config.load import load_params
    from svd.curation.annotate.tables import TABLE_NAME
    from svd.curation.filter.score_table import ScoreTable
    from svd.curation.filter.sweep import PAPER_SHARES, as_csv, parse_axes
    from svd.curation.filter.sweep import sweep as count
    from svd.curation.filter.sweep_picture import draw_sweep
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    config = load_params(workspace.params_file).filter
    opened = ScoreTable.open(table or workspace.annotations / TABLE_NAME)
    report = count(opened, parse_axes(scores, config), config, shares=shares or PAPER_SHARES)
    folder = out or workspace.root / "reports" / "sweep"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(report.canonical_json(), encoding="utf-8")
    (folder / "sweep.csv").write_text(as_csv(report), encoding="utf-8")
    draw_sweep(folder / "sweep.png", report)
    console = Console()
    console.print(_axis_table(report))
    if show_all or len(report.rows) <= _MAX_ROWS_SHOWN:
        console.print(_combination_table(report))
    else:
        console.print(f"{len(report.rows)} combinations: --all prints them; they are in sweep.csv")
    if report.recipe is not None:
        clips, hours = report.recipe.num_clips, report.recipe.hours
        console.print(f"The recipe's own thresholds keep {clips:,} clips, {hours:,.3f} h.")
    console.print(f"{folder}/sweep.json, sweep.csv, sweep.png ({report.seconds:.2f} s of queries)")


@app.command("camera-motion")
def camera_motion() -> None:
    """Classify clips by what their camera does, for the adapters; stage camera-motion."""
    from rich.console import Console

    from svd.commands.stage import run_stage
    from svd.runtime.workspace import Workspace
    from svd.types.camera import CameraMotionReport

    run_stage("camera-motion")
    path = Workspace.find().camera_motion / "report.json"
    if not path.is_file():  # the recipe does not plan it, which run_stage has said
        return
    report = CameraMotionReport.parse(path.read_text(encoding="utf-8"), origin=str(path))
    if report.confusion is not None:
        Console().print(_confusion_table(report.confusion))


def _confusion_table(confusion: "Confusion") -> "Table":
    from rich.table import Table

    from svd.types.camera import CAMERA_CLASSES

    shown = Table(title=f"Clips with a known camera: {confusion.accuracy:.1%} right")
    for name in ("true \\ found", *CAMERA_CLASSES):
        shown.add_column(name, justify="left" if name.startswith("true") else "right")
    for true in CAMERA_CLASSES:
        if true in confusion.counts:
            row = confusion.counts[true]
            shown.add_row(true, *(str(row.get(found, 0)) for found in CAMERA_CLASSES))
    return shown


def _axis_table(report: "SweepReport") -> "Table":
    """Return each axis on its own, as the paper's ablation has it."""
    from rich.table import Table

    shown = Table(
        title=f"One score at a time, of {report.num_clips:,} clips, {report.hours:,.2f} h"
    )
    for name in ("score", "drops", "bound", "clips", "hours", "kept"):
        shown.add_column(name, justify="left" if name in ("score", "drops") else "right")
    by_shares = {row.shares: row for row in report.rows}
    for place, axis in enumerate(report.axes):
        for share, bound in zip(report.shares[1:], axis.bounds[1:], strict=True):
            alone = tuple(share if i == place else 0.0 for i in range(len(report.axes)))
            row = by_shares[alone]
            dropped = f"{100 * share:g} %"
            value = "-" if bound is None else f"{bound:.4g}"
            kept = f"{row.num_clips / max(1, report.num_clips):.1%}"
            clips, hours = f"{row.num_clips:,}", f"{row.hours:,.3f}"
            shown.add_row(axis.score, f"{axis.drops} {dropped}", value, clips, hours, kept)
    return shown


def _combination_table(report: "SweepReport") -> "Table":
    from rich.table import Table

    shown = Table(title="Every combination (share dropped per score)")
    for axis in report.axes:
        shown.add_column(f"{axis.score}\n{axis.drops}", justify="right")
    for name in ("clips", "hours", "kept"):
        shown.add_column(name, justify="right")
    for row in report.rows:
        kept = row.num_clips / max(1, report.num_clips)
        shares = [f"{share:.3g}" if share else "-" for share in row.shares]
        shown.add_row(*shares, f"{row.num_clips:,}", f"{row.hours:,.3f}", f"{kept:.1%}")
    return shown
