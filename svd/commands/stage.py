"""`svd <stage>`: load the recipe, open the tracker, call one library function, print its report."""

import functools
import importlib
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from svd.types.camera import ADAPTERS, AdapterName
from svd.types.orbit import PRIORS, PriorName

if TYPE_CHECKING:
    from svd.runtime.workspace import Workspace
    from svd.types.artifact import StageReport
    from svd.types.stage import StageRun

TRAINING: Final = "svd.training.stage.stages"  # one function for all stages that train the denoiser
# Where each stage's library function lives. Imported only when the stage runs.
HOMES: Final = {
    "ingest": "svd.curation.ingest.stage",
    "clip": "svd.curation.clip.stage",
    "annotate": "svd.curation.annotate.stage",
    "filter": "svd.curation.filter.stage",
    "autoencoder": "svd.training.pixels.autoencoder",
    "encode": "svd.data.encode",
    "pretrain-image": TRAINING,
    "pretrain-video": TRAINING,
    "finetune-i2v": TRAINING,
    "evaluate": "svd.evaluation.evaluate",
    "register": "svd.registry.register",
    "finetune-t2v": TRAINING,
    "finetune-interpolation": TRAINING,
    "finetune-decoder": "svd.training.pixels.decoder",
    "camera-motion": "svd.curation.camera_motion.stage",
    **{f"lora@{name}": TRAINING for name in ADAPTERS},
    "orbits": "svd.data.orbits.stage",
    "encode-orbits": "svd.data.orbits.encode",
    **{f"finetune-multiview@{prior}": TRAINING for prior in PRIORS},
    "evaluate-multiview": "svd.evaluation.multiview",
    "evaluate-finetunes": "svd.evaluation.finetunes.stage",
}
# Stages whose command is not their own name.
COMMANDS: Final = {
    "camera-motion": "curate camera-motion",
    **{f"lora@{name}": f"lora {name}" for name in ADAPTERS},
    **{f"finetune-multiview@{prior}": f"finetune-multiview {prior}" for prior in PRIORS},
}
HELP: Final = {
    "ingest": "Index the raw videos of the recipe's sources; list the bad ones with a reason.",
    "clip": "Find cuts in one decode pass and extract keyframe-snapped clips.",
    "annotate": "Score and caption every clip, with the recipe's networks; group near-duplicates.",
    "filter": "Judge every clip by the thresholds; split train from held-out; draw contact sheets.",
    "autoencoder": "Train (or import) the VAE.",
    "encode": "Write WebDataset shards of latents, embeddings and ids.",
    "pretrain-image": "Stage I: train the spatial layers on single frames.",
    "pretrain-video": "Stage II: train all layers on clips.",
    "finetune-i2v": "Stage III: finetune image-to-video.",
    "evaluate": "Sample videos from held-out first frames and measure them.",
    "register": "Put metrics through the gates and register a version.",
    "finetune-t2v": "Stage III: finetune text-to-video.",
    "finetune-interpolation": "Finetune to put new frames between two.",
    "finetune-decoder": "Teach the decoder to look over time, against the frozen encoder.",
    "orbits": "Render meshes, or read filmed objects, as views around them.",
    "encode-orbits": "Write shards of latents of the views around objects.",
    "evaluate-multiview": "Compare views of unseen objects, from each prior, with the renders.",
    "evaluate-finetunes": "Measure each finetune against what it was derived from.",
}
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved section of the recipe and stop.")
]


def add_stage_commands(app: typer.Typer) -> None:
    """Give the app one command per stage; evaluate is a group and hangs itself on the app."""
    for stage in HOMES:
        if stage != "evaluate" and stage not in COMMANDS:
            app.command(stage, help=HELP[stage], rich_help_panel="Stages")(_door(stage))
    app.command(rich_help_panel="Stages")(lora)
    app.command("finetune-multiview", rich_help_panel="Stages")(finetune_multiview)


def lora(
    name: Annotated[AdapterName, typer.Argument(help="Camera motion to learn.")],
    dry_run: DryRun = False,
) -> None:
    """Train a camera-motion adapter of the image-to-video model."""
    run_or_print_stage(f"lora@{name}", dry_run=dry_run)


def finetune_multiview(
    prior: Annotated[PriorName, typer.Argument(help="What to start from.")],
    dry_run: DryRun = False,
) -> None:
    """Finetune to show an object from all around, from one of three priors."""
    run_or_print_stage(f"finetune-multiview@{prior}", dry_run=dry_run)


def _door(stage: str) -> Callable[[bool], None]:
    def door(dry_run: DryRun = False) -> None:
        run_or_print_stage(stage, dry_run=dry_run)

    return door


def run_or_print_stage(stage: str, *, dry_run: bool) -> None:
    """Run a stage, or print the resolved section of the recipe."""
    if dry_run:
        _print_section(stage)
    else:
        run_stage(stage)


def _print_section(stage: str) -> None:
    import json

    from svd.config.load import load_params
    from svd.runtime.workspace import Workspace

    params = load_params(Workspace.find().params_file)
    name = stage.partition("@")[0]  # the stages of a foreach share a section
    section = params.model_dump(mode="json", by_alias=True)[name]
    typer.echo(json.dumps({name: section}, indent=2))


def run_stage(stage: str) -> None:
    """Run one stage in this process and keep what it said in .svd/stages/."""
    from svd.config.load import load_params
    from svd.runtime.cost import spent_scalars
    from svd.runtime.fingerprint import stage_fingerprint
    from svd.runtime.spent import WORKERS
    from svd.runtime.tracking import open_tracker
    from svd.runtime.workspace import Workspace
    from svd.types.stage import StageRun

    workspace = Workspace.find()
    params = load_params(workspace.params_file)
    if not params.derive.plans(stage):
        _leave_unplanned(workspace, stage)
        return
    started_at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    group = os.environ.get("SVD_PIPELINE_RUN")
    config = params.model_dump(mode="json", by_alias=True)
    with open_tracker(stage, workspace=workspace, config=config, group=group) as tracker:
        report = _library_function(stage)(params, workspace, tracker=tracker)
        gpu_s = WORKERS.gpu_s + _own_gpu_s(time.monotonic() - started)
        is_training = HOMES[stage] == TRAINING  # whose ranks have told what they spent
        tracker.summarize(report.summary | ({} if is_training else spent_scalars(gpu_s, None)))
    used = os.times()
    run = StageRun(
        fingerprint=stage_fingerprint(workspace, stage),
        pipeline_run=group,
        started_at=started_at,
        wall_s=round(time.monotonic() - started, 2),
        cpu_s=round(WORKERS.cpu_s + used.user + used.system, 2),
        gpu_s=round(gpu_s, 2),
        report=report,
    )
    path = workspace.stage_run(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run.canonical_json(), encoding="utf-8")
    _print_report(run)


def _own_gpu_s(wall_s: float) -> float:
    """Return how long this very process has held a GPU: from its start, if it has used one."""
    torch = sys.modules.get("torch")
    return wall_s if torch is not None and torch.cuda.is_initialized() else 0.0


def _leave_unplanned(workspace: "Workspace", stage: str) -> None:
    from svd.config.derive import derive_key
    from svd.runtime.unplanned import leave_unplanned

    key = derive_key(stage)
    leave_unplanned(workspace, stage, f"{key} is false in the recipe")
    typer.echo(f"{stage}: not planned by the recipe, see {key} in params.yaml", err=True)


def _library_function(stage: str) -> "Callable[..., StageReport]":
    run = importlib.import_module(HOMES[stage]).run
    return functools.partial(run, stage) if HOMES[stage] == TRAINING else run


def _print_report(run: "StageRun") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{run.report.stage} ({run.wall_s:.0f} s)", show_header=False)
    for key, value in run.report.summary.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else f"{value}"
        table.add_row(key, shown)
    console = Console(stderr=True)
    console.print(table)
    for warning in run.report.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    for output in run.report.outputs:
        console.print(f"  {output}", markup=False, highlight=False)
