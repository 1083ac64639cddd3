"""`svd checkpoint`: the live state of training runs, looked at, checked, and made into models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from svd.training.stage.job import TrainingJob

app = typer.Typer(no_args_is_help=True)
Run = Annotated[
    str | None,
    typer.Argument(help="A stage, or the beginning of a run's fingerprint (default: all)."),
]
Phase = Annotated[str | None, typer.Option(help="Phase of the stage (default: the last).")]
Out = Annotated[Path, typer.Option(help="Folder for weights.safetensors and model.json.")]


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app,
        name="checkpoint",
        help="Checkpoints of training runs: ls, verify, export, ema, adopt.",
        rich_help_panel="Models",
    )


@app.command("ls")
def list_checkpoints(run: Run = None) -> None:
    """List checkpoints: where each is, what it is worth, and why it is kept."""
    from rich.table import Table

    from svd.commands.terminal import open_console
    from svd.training.checkpoints.checkpoint import home_of
    from svd.training.live import checkpoints_of

    for job in _jobs(run):
        columns = ["phase", "step", "clips", "ranks", "ZeRO", "MB", "held-out", "kept", "content"]
        table = Table(*columns, title=f"{job.stage} {Path(job.run).name}")
        for found in checkpoints_of(job):
            if found.record is None:
                table.add_row(found.phase_name, "damaged", found.problem)
                continue
            state = found.record.state
            table.add_row(
                found.phase_name,
                str(state.step),
                str(state.examples_seen),
                str(found.record.world_size),
                str(found.record.zero_stage),
                f"{found.record.size_bytes / 1e6:.1f}",
                "" if state.heldout_loss is None else f"{state.heldout_loss:.4f}",
                ", ".join(found.reasons),
                found.record.content_hash()[:12],
            )
        if table.row_count == 0:
            typer.echo(f"{table.title}: no checkpoint")
            continue
        open_console().print(table)
        for index in range(len(job.config.phases)):
            typer.echo(f"  {home_of(job, index)}")


@app.command()
def verify(run: Run = None) -> None:
    """Read every file of every checkpoint again and compare it with its sha256."""
    import tempfile

    from svd.errors import IntegrityError
    from svd.training.checkpoints.checkpoint import verify_files
    from svd.training.live import checkpoints_of

    num_sound, num_damaged = 0, 0
    for job in _jobs(run):
        for found in checkpoints_of(job):
            with tempfile.TemporaryDirectory() as folder:
                problems = (
                    [found.problem]
                    if found.record is None
                    else list(verify_files(found.store, found.record, Path(folder)))
                )
            num_sound, num_damaged = num_sound + (not problems), num_damaged + bool(problems)
            for problem in problems:
                typer.echo(f"damaged: {problem}")
    typer.echo(f"{num_sound} sound, {num_damaged} damaged")
    if num_damaged:
        raise IntegrityError(f"{num_damaged} are damaged; a resume takes the ones before them")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A stage, or the beginning of a fingerprint.")],
    out: Out,
    step: Annotated[int | None, typer.Option(help="Within the phase (default: newest).")] = None,
    phase: Phase = None,
    averaged: Annotated[
        bool, typer.Option("--averaged/--raw", help="Averaged weights, or the optimizer's.")
    ] = True,
) -> None:
    """Write a checkpoint as a model that `svd sample --model` and `svd convert` take."""
    from svd.training.live import export_checkpoint, pick_checkpoint

    found = pick_checkpoint(_jobs(run), step=step, phase=phase)
    record = export_checkpoint(found, out, averaged=averaged)
    typer.echo(f"{out}: step {record.step}, weights {record.weights_sha256[:12]}")


@app.command()
def ema(
    run: Annotated[str, typer.Argument(help="A stage, or the beginning of a fingerprint.")],
    out: Out,
    std: Annotated[
        float, typer.Option(min=0.01, max=0.28, help="Relative standard deviation of the average.")
    ],
    step: Annotated[int | None, typer.Option(help="Where it ends (default: the last).")] = None,
    phase: Phase = None,
) -> None:
    """Put an average of any length together, after the fact, from a phase's `power_ema`."""
    from svd.errors import ConfigError
    from svd.training.live import export_power_average

    job = _jobs(run)[-1]
    names = [one.name for one in job.config.phases]
    if phase is not None and phase not in names:
        raise ConfigError(f"{job.stage} has no phase {phase}; it has: {', '.join(names)}")
    index = len(names) - 1 if phase is None else names.index(phase)
    record = export_power_average(job, index, out, std=std, step=step)
    typer.echo(f"{out}: std {std:g}, step {record.step}, weights {record.weights_sha256[:12]}")


@app.command()
def adopt(
    run: Annotated[str, typer.Argument(help="A stage, or the beginning of a fingerprint.")],
) -> None:
    """Let the next start of a stage go on from a run that other code or parameters made.

    A change of code, parameters or inputs gives a run a new name, and so a clean start. This copies
    the newest checkpoint, finished phases, rows and cost of RUN to the name that its stage has now.
    That the change does not matter is for you to know; the stage's report says what it was.
    Stop RUN first.
    """
    from svd.config.load import load_params
    from svd.runtime.fingerprint import fingerprint_of, stage_identity
    from svd.runtime.workspace import Workspace
    from svd.training.stage.adoption import adopt as adopt_run
    from svd.training.stage.plan import plan_stage
    from svd.types.stage import TRAINING_STAGES

    workspace, found = Workspace.find(), _jobs(run)
    stage = next(stage for stage in TRAINING_STAGES if stage == found[-1].stage)
    identity = stage_identity(workspace, stage)
    name = fingerprint_of(stage, identity)
    others = [job for job in found if Path(job.run).name != name]  # a stage's name is all its runs
    old = (others or found)[-1]
    new = plan_stage(stage, load_params(workspace.params_file), workspace, name=name).job
    adoption = adopt_run(old, new, identity)
    typer.echo(
        f"{name} goes on from step {adoption.step} of {adoption.run}, which differs in: "
        f"{', '.join(adoption.differs)}"
    )


def _jobs(run: str | None) -> "list[TrainingJob]":
    from svd.runtime.workspace import Workspace
    from svd.training.live import find_jobs

    return find_jobs(Workspace.find(), run)
