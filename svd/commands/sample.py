"""`svd sample`: videos from pictures or prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from svd.commands.watermark import watermark as watermark_command
from svd.errors import ConfigError
from svd.media.formats import OutputFormat

if TYPE_CHECKING:
    from svd.config.sampling import SamplingConfig
    from svd.sampling.request import Draw
    from svd.sampling.safety import SafetyFilter
    from svd.sampling.session import Session
    from svd.types.artifact import ModelRecord

INPUT, MODEL, OUTPUT, LOOK, MEMORY = "What", "Model", "Files", "Look", "Speed and memory"
SolverName = Literal["euler", "heun", "dpmpp-2m", "euler-ancestral", "ddim"]
GuidanceKind = Literal["constant", "linear", "triangular", "trapezoidal"]
Precision = Literal["fp32", "fp16", "bf16"]
RELEASE_SEED = 23  # of simple_video_sample.py in Stability-AI/generative-models


def add_commands(root: typer.Typer) -> None:
    """Hang the commands on the root."""
    root.command(rich_help_panel="Models")(sample)
    root.command("watermark", rich_help_panel="Models")(watermark_command)


def sample(
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Picture to start from, or a folder of them.", rich_help_panel=INPUT),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text to show.", rich_help_panel=INPUT)
    ] = None,
    negative_prompt: Annotated[
        str, typer.Option(help="Text to lead away from.", rich_help_panel=INPUT)
    ] = "",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first sample.", rich_help_panel=INPUT)
    ] = RELEASE_SEED,
    num_samples: Annotated[
        int,
        typer.Option(min=1, help="Videos per input; seeds count up.", rich_help_panel=INPUT),
    ] = 1,
    segments: Annotated[
        int,
        typer.Option(
            min=1,
            help="Go on from the last frame this many times in all.",
            rich_help_panel=INPUT,
        ),
    ] = 1,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the denoiser (default: models/finetune-i2v, or models/pretrain-video "
            "for prompts).",
            rich_help_panel=MODEL,
        ),
    ] = None,
    autoencoder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the autoencoder (default: models/autoencoder).", rich_help_panel=MODEL
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="Adapter NAME[:SCALE][@FIRST-LAST]: horizontal, zoom:0.8, zoom:1@0-6, or a file. "
            "Repeat to mix.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    safety_clip: Annotated[
        Path | None,
        typer.Option(
            help="OpenAI CLIP ViT-L/14 (safetensors) of the safety filter.", rich_help_panel=MODEL
        ),
    ] = None,
    safety_heads: Annotated[
        Path | None,
        typer.Option(
            help="Folder with p_head_v1.npz and w_head_v1.npz of the safety filter.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.", rich_help_panel=OUTPUT)] = Path(
        "samples"
    ),
    formats: Annotated[
        list[OutputFormat] | None,
        typer.Option("--format", help="Repeat for several (default: mp4).", rich_help_panel=OUTPUT),
    ] = None,
    watermark: Annotated[
        bool, typer.Option(help="Invisible 48-bit mark in every frame.", rich_help_panel=OUTPUT)
    ] = True,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML of a sampling section; options win.", rich_help_panel=LOOK),
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=LOOK)] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=LOOK)] = None,
    num_frames: Annotated[
        int | None, typer.Option(help="Frames per segment.", rich_help_panel=LOOK)
    ] = None,
    fps: Annotated[
        int | None,
        typer.Option(help="Frames per second, told to the model.", rich_help_panel=LOOK),
    ] = None,
    motion_bucket_id: Annotated[
        int | None,
        typer.Option(
            "--motion",
            "--motion-bucket-id",
            min=0,
            max=255,
            help="Amount of motion: 127 is the median of the clips that the model was trained on.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    cond_aug: Annotated[
        float | None, typer.Option(help="Noise on the picture.", rich_help_panel=LOOK)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps.", rich_help_panel=LOOK)] = None,
    solver: Annotated[SolverName | None, typer.Option(help="Solver.", rich_help_panel=LOOK)] = None,
    guidance: Annotated[
        GuidanceKind | None, typer.Option(help="Scale over the frames.", rich_help_panel=LOOK)
    ] = None,
    min_guidance: Annotated[
        float | None, typer.Option(help="Scale of the first frame.", rich_help_panel=LOOK)
    ] = None,
    max_guidance: Annotated[
        float | None, typer.Option(help="Scale of the last frame.", rich_help_panel=LOOK)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any key of the section, e.g. schedule.rho=5.", rich_help_panel=LOOK
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", rich_help_panel=MEMORY)
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Of denoiser and encoders.", rich_help_panel=MEMORY)
    ] = "fp32",
    autoencoder_precision: Annotated[
        Precision, typer.Option(help="Of the autoencoder.", rich_help_panel=MEMORY)
    ] = "fp32",
    batch_size: Annotated[
        int | None, typer.Option(help="Videos at once.", rich_help_panel=MEMORY)
    ] = None,
    two_passes: Annotated[
        bool, typer.Option(help="Guidance in two passes: half the memory.", rich_help_panel=MEMORY)
    ] = False,
    decode_chunk_size: Annotated[
        int | None, typer.Option(help="Frames decoded at once.", rich_help_panel=MEMORY)
    ] = None,
    offload: Annotated[
        bool,
        typer.Option(help="Keep only the network at work on the device.", rich_help_panel=MEMORY),
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the settings and stop.")] = False,
) -> None:
    """Sample videos from pictures (image-to-video) or from prompts (text-to-video)."""
    if bool(image) == bool(prompt):
        raise ConfigError("give pictures (--image) or prompts (--prompt), one of the two")
    if prompt and segments > 1:
        raise ConfigError("--segments continues from a picture; it needs --image")
    flags = {
        "height": height,
        "width": width,
        "num_frames": num_frames,
        "fps": fps,
        "motion_bucket_id": motion_bucket_id,
        "cond_aug": cond_aug,
        "schedule.num_steps": steps,
        "solver.name": solver,
        "guidance.kind": guidance,
        "guidance.min_scale": min_guidance,
        "guidance.max_scale": max_guidance,
        "guidance.passes": "two-passes" if two_passes else None,
        "batch_size": batch_size,
        "decode_chunk_size": decode_chunk_size,
    }
    placement = {
        "device": device,
        "precision": precision,
        "autoencoder_precision": autoencoder_precision,
        "offload": offload,
    }
    model = model or _models() / ("pretrain-video" if prompt else "finetune-i2v")
    record, settings = _resolve(model, config, {**flags, **_parse_settings(setting or [])})
    if dry_run:
        typer.echo(settings.model_dump_json(indent=2))
        return
    draws = _plan(settings, image or [], prompt or [], seed=seed, num_samples=num_samples)
    from svd.config.sampling import PlacementConfig
    from svd.sampling.adapters import parse_use
    from svd.sampling.load import load_components
    from svd.sampling.session import Session

    safety = _safety_filter(safety_clip, safety_heads)
    components = load_components(
        model,
        autoencoder or _models() / "autoencoder",
        placement=PlacementConfig.model_validate(placement),
        adapters=tuple(parse_use(text, models=_models()) for text in lora or []),
    )
    session = Session(
        components=components,
        record=record,
        config=settings,
        negative_prompt=negative_prompt,
        num_segments=segments,
        out=out,
        formats=tuple(formats or [OutputFormat.MP4]),
        watermark=watermark,
        safety=safety,
    )
    _run(session, draws)


def _models() -> Path:
    from svd.runtime.workspace import Workspace

    return Workspace.find().root / "models"


def _parse_settings(pairs: Sequence[str]) -> dict[str, object]:
    import yaml

    settings: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set {pair}: write it as KEY=VALUE, e.g. --set schedule.rho=5")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError as err:
            raise ConfigError(f"--set {pair}: {text!r} is not YAML") from err
    return settings


def _resolve(
    model: Path, file: Path | None, flags: Mapping[str, object]
) -> "tuple[ModelRecord, SamplingConfig]":
    """Return model.json and the settings in force."""
    from svd.sampling.record import read_model_record
    from svd.sampling.request import resolve_settings

    record = read_model_record(model, kind="denoiser")
    given = {key: value for key, value in flags.items() if value is not None}
    return record, resolve_settings(record, file, given)


def _plan(
    settings: "SamplingConfig",
    images: Sequence[Path],
    prompts: Sequence[str],
    *,
    seed: int,
    num_samples: int,
) -> "tuple[Draw, ...]":
    from svd.sampling.request import plan_draws, prompt_subjects, read_subjects

    size = {"height": settings.height, "width": settings.width}
    subjects = prompt_subjects(prompts) if prompts else read_subjects(images, **size)
    return plan_draws(subjects, first_seed=seed, num_samples=num_samples)


def _safety_filter(clip: Path | None, heads: Path | None) -> "SafetyFilter | None":
    from svd.sampling.safety import release_filter

    if clip is None and heads is None:
        return None
    if clip is None or heads is None:
        raise ConfigError("the safety filter needs both --safety-clip and --safety-heads")
    return release_filter(clip, heads)


def _run(session: "Session", draws: "Sequence[Draw]") -> None:
    """Sample, print each file as it is written, and show how much is left."""
    import torch

    from svd.runtime.progress import track
    from svd.sampling.session import run_session

    total = session.num_steps(len(draws))
    bar = track(range(total), total=total, description="sampling", unit="steps")
    next(bar)  # shows the bar; each further call says that a step is done

    def on_step() -> None:
        next(bar, None)

    try:
        for files in run_session(session, draws, on_step=on_step):
            for file in files:
                typer.echo(str(session.out / file))
    except torch.OutOfMemoryError as err:
        raise ConfigError(
            f"{session.components.device} has too little memory for "
            f"{session.config.num_frames} frames of {session.config.width}x"
            f"{session.config.height}; try --precision fp16, --two-passes, "
            "--decode-chunk-size 2, --batch-size 1, --offload, or fewer or smaller frames"
        ) from err
