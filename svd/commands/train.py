"""`svd train STAGE`: run a training stage, or say what it will need."""

from typing import TYPE_CHECKING, Annotated

import typer

from svd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from svd.config.params import Params
    from svd.training.planning.forecast import Machine, PhaseForecast, StageForecast
    from svd.types.stage import TrainingStage

Stage = Annotated[str, typer.Argument(help="A training stage, e.g. finetune-i2v.")]
Plan = Annotated[
    bool, typer.Option("--plan", help="Start nothing: print memory, operations, hours and cost.")
]
Recipe = Annotated[
    str, typer.Option(help="With --plan: a recipe's name, or `params` for the one in force.")
]
GpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help="With --plan: what each rank has, e.g. h100; default: a100-80gb, or this machine's "
        "processor where the recipe trains on one.",
    ),
]
Utilisation = Annotated[
    float | None,
    typer.Option(min=0.01, max=1.0, help="With --plan: share of the peak that a step reaches."),
]
Price = Annotated[
    float | None, typer.Option(min=0.0, help="With --plan: of one GPU, in any currency.")
]


def add_commands(root: typer.Typer) -> None:
    """Hang the command on the root."""
    root.command(rich_help_panel="Stages")(train)


def train(
    stage: Stage,
    plan: Plan = False,
    recipe: Recipe = "params",
    gpu: GpuName = None,
    utilisation: Utilisation = None,
    price_per_gpu_hour: Price = None,
) -> None:
    """Run a training stage (as `svd STAGE` does), or plan it before anything is spent."""
    from svd.types.stage import TRAINING_STAGES

    known = next((name for name in TRAINING_STAGES if name == stage), None)
    if known is None:
        raise ConfigError(f"{stage} is no training stage; there are: {', '.join(TRAINING_STAGES)}")
    if plan:
        _print_plan(known, recipe, gpu, utilisation, price_per_gpu_hour)
        return
    if recipe != "params":
        raise ConfigError(f"--recipe {recipe} goes with --plan; `svd recipe use {recipe}` first")
    from svd.commands.stage import run_stage

    run_stage(known)


def _print_plan(
    stage: "TrainingStage",
    recipe: str,
    gpu: str | None,
    utilisation: float | None,
    price: float | None,
) -> None:
    from rich.console import Console

    from svd.config.load import load_params
    from svd.config.recipe import recipe_path
    from svd.runtime.workspace import Workspace
    from svd.training.planning.forecast import DEFAULT_UTILISATION, StageForecast

    params = load_params(recipe_path(Workspace.find().root, recipe))
    share = utilisation or DEFAULT_UTILISATION
    machine = _machine(stage, params, gpu)
    forecast = StageForecast(
        stage=stage,
        compute=params.training(stage).compute,
        machine=machine,
        utilisation=share,
        phases=tuple(_with_progress(stage, params, machine, share)),
    )
    console = Console()
    console.print(_headline(recipe, forecast), highlight=False)
    for phase in forecast.phases:
        console.print(_memory_table(phase, forecast))
        console.print(_choice_table(phase, forecast))
        console.print(_advice(phase, forecast), highlight=False)
    console.print(_bill(forecast, price), highlight=False)


def _machine(stage: "TrainingStage", params: "Params", gpu: str | None) -> "Machine":
    import torch

    from svd.training.loop.gpus import GPUS
    from svd.training.planning.forecast import Machine, this_processor

    compute = params.training(stage).compute
    here = compute.launcher.kind == "local" and not torch.cuda.is_available()
    if gpu is None and (compute.device == "cpu" or (compute.device == "auto" and here)):
        return this_processor(compute)
    name = gpu or "a100-80gb"
    if name not in GPUS:
        raise ConfigError(f"--gpu {name} is not known; known are: {', '.join(GPUS)}")
    return Machine.of(name, GPUS[name])


def _with_progress(
    stage: "TrainingStage", params: "Params", machine: "Machine", utilisation: float
) -> "Iterator[PhaseForecast]":
    from svd.runtime.progress import track
    from svd.training.planning.forecast import forecast_stage

    phases = forecast_stage(stage, params, machine, utilisation=utilisation)
    total = len(params.training(stage).phases)
    return iter(track(phases, total=total, description=f"{stage}: counting", unit="phases"))


def _headline(recipe: str, forecast: "StageForecast") -> str:
    compute = forecast.compute
    where = f"{compute.num_processes} ranks"
    if compute.launcher.nodes > 1:
        where += f" on {compute.launcher.nodes} nodes"
    offload = ", optimizer on the CPU" if compute.offload_optimizer else ""
    return (
        f"[bold]{forecast.stage}[/bold] of recipe {recipe}: {where}, each {forecast.machine.name}; "
        f"{compute.precision}, ZeRO-{compute.zero_stage}{offload}, recomputes "
        f"{compute.activation_checkpointing}"
    )


def _memory_table(phase: "PhaseForecast", forecast: "StageForecast") -> object:
    from rich.table import Table

    count, clip, config = phase.parameters, phase.footprint, phase.phase
    data = config.data
    rows = {
        "parameters": f"{count.total:,}, of which {count.trained:,} trained",
        "clips": f"{data.num_frames} frames of {data.height}x{data.width}; {data.batch_size} per "
        f"step, {config.micro_batch_size} at once",
        "operations per clip": f"forward {_flop(clip.forward_flops)}, step "
        f"{_flop(clip.step_flops)} ({_recomputed(phase):.0%} recomputed)",
        "operations per step": f"{_flop(data.batch_size * clip.step_flops)}, all ranks",
    }
    table = Table(title=f"phase {config.name}", title_justify="left", show_header=False)
    for key, text in rows.items():
        table.add_row(key, text)
    table.add_section()
    for kind, size in phase.memory.kinds.items():
        table.add_row(kind, _bytes(size))
    if phase.memory.offloaded:
        table.add_row("of it in the CPU's memory", _bytes(phase.memory.offloaded))
    table.add_row("with a reserve", _bytes(phase.memory.total))
    table.add_section()
    table.add_row("step", f"{phase.step_s:.3g} s at {forecast.utilisation:.0%} of the peak")
    if phase.sent_bytes:
        table.add_row("sent and received per rank", f"{_bytes(phase.sent_bytes)} per step")
    table.add_row("phase", f"{config.num_steps:,} steps, {phase.hours:.4g} h")
    return table


def _recomputed(phase: "PhaseForecast") -> float:
    clip = phase.footprint
    return max(0.0, clip.step_flops / clip.model_flops - 1)


def _choice_table(phase: "PhaseForecast", forecast: "StageForecast") -> object:
    from rich.table import Table

    table = Table(
        "recomputes",
        *("ZeRO", "per rank", "fits", "clips at once, at most"),
        title=f"what fits {_bytes(forecast.machine.memory_bytes)}",
        title_justify="left",
    )
    for choice in phase.choices:
        fits = choice.memory.total <= forecast.machine.memory_bytes
        table.add_row(
            choice.policy,
            str(choice.zero_stage),
            _bytes(choice.memory.total),
            "yes" if fits else "no",
            str(choice.clips_that_fit),
        )
    return table


def _advice(phase: "PhaseForecast", forecast: "StageForecast") -> str:
    fits = "fits" if phase.fits else "[red]does not fit[/red]"
    needed, there = _bytes(phase.memory.total), _bytes(forecast.machine.memory_bytes)
    text = f"The recipe {fits} ({needed} of {there})"
    if phase.best is None:
        return f"{text}; nothing does: take a smaller micro_batch_size, more ranks or offload.\n"
    best = phase.best
    return (
        f"{text}; least work that fits: zero_stage={best.zero_stage}, "
        f"activation_checkpointing={best.policy}, {_bytes(best.memory.total)}.\n"
    )


def _bill(forecast: "StageForecast", price: float | None) -> str:
    hours = sum(phase.hours for phase in forecast.phases)
    unit = "GPU-hours" if forecast.machine.is_gpu else "rank-hours"
    text = f"{hours:,.1f} h, {forecast.device_hours:,.1f} {unit}"
    if price is not None:
        text += f", {forecast.device_hours * price:,.2f} at {price:g} per GPU-hour"
    return (
        f"[bold]{text}[/bold]; without reading data, sending, validation and checkpoints, at "
        f"{forecast.utilisation:.0%} of {_flop(round(forecast.machine.flops))}/s (--utilisation)"
    )


def _bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _flop(count: int) -> str:
    """Write operations with the largest prefix that leaves a number above 1."""
    for prefix, unit in (("P", 1e15), ("T", 1e12)):
        if count >= unit:
            return f"{count / unit:.4g} {prefix}FLOP"
    return f"{count / 1e9:.4g} GFLOP"
