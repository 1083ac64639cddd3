"""`svd sample`: videos from pictures or prompts."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from svd.commands.sample_parts import (
    build_safety_filter,
    check_inputs,
    check_multiview,
    find_models,
    parse_settings,
    read_inputs,
    resolve,
    run,
)
from svd.commands.watermark import watermark as watermark_command
from svd.media.formats import OutputFormat

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
    video: Annotated[
        list[Path] | None,
        typer.Option(
            help="Video file, or folder of frames, to interpolate.", rich_help_panel=INPUT
        ),
    ] = None,
    orbit: Annotated[
        list[Path] | None,
        typer.Option(
            help="Picture of an object, or a folder of them, to be shown from all around.",
            rich_help_panel=INPUT,
        ),
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
    interpolate: Annotated[
        bool,
        typer.Option(
            help="Put new frames between those of a --video, or of what is sampled: 4 (n - 1) + 1.",
            rich_help_panel=INPUT,
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the denoiser, or of a converted model (default: models/finetune-i2v, "
            "or models/pretrain-video for prompts).",
            rich_help_panel=MODEL,
        ),
    ] = None,
    autoencoder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the autoencoder (default: models/autoencoder).", rich_help_panel=MODEL
        ),
    ] = None,
    decoder: Annotated[
        Literal["image", "temporal"] | None,
        typer.Option(
            help="Decode frame by frame, or over time with what finetune-decoder trained (default: "
            "over time if the autoencoder's folder has a temporal decoder).",
            rich_help_panel=MODEL,
        ),
    ] = None,
    interpolation_model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the interpolation model (default: models/finetune-interpolation).",
            rich_help_panel=MODEL,
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
    elevation: Annotated[
        float | None,
        typer.Option(
            help="With --orbit: degrees above the object; trained on -5 to 30.",
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
    interpolation_setting: Annotated[
        list[str] | None,
        typer.Option(
            "--interpolation-set",
            help="Any key of the section for the frames between, e.g. schedule.num_steps=10.",
            rich_help_panel=LOOK,
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
    compile_blocks: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the UNet first; pays off for many.", rich_help_panel=MEMORY
        ),
    ] = False,
    offload: Annotated[
        bool,
        typer.Option(help="Keep only the network at work on the device.", rich_help_panel=MEMORY),
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the settings and stop.")] = False,
) -> None:
    """Sample videos from pictures or prompts, and put new frames between those of videos."""
    kinds = {"--image": image, "--prompt": prompt, "--video": video, "--orbit": orbit}
    check_inputs(
        [name for name, given in kinds.items() if given],
        interpolate=interpolate,
        segments=segments,
        has_lora=bool(lora),
        has_elevation=elevation is not None,
    )
    flags = {
        "height": height,
        "width": width,
        "num_frames": num_frames,
        "fps": fps,
        "motion_bucket_id": motion_bucket_id,
        "elevation_deg": elevation,
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
        "compile_blocks": compile_blocks,
        "offload": offload,
    }
    models = find_models()
    interpolation_model = interpolation_model or models / "finetune-interpolation"
    if video:
        model = interpolation_model
    of_pictures = "finetune-multiview@video-prior" if orbit else "finetune-i2v"
    model = model or models / ("pretrain-video" if prompt else of_pictures)
    if (model / "denoiser").is_dir():  # a converted model
        autoencoder, model = autoencoder or model / "autoencoder", model / "denoiser"
    record, settings = resolve(model, config, {**flags, **parse_settings(setting or [], "--set")})
    if orbit:
        check_multiview(record, model)
    if dry_run:
        typer.echo(settings.model_dump_json(indent=2))
        return
    from svd.config.sampling import PlacementConfig
    from svd.sampling.interpolate import Interpolator
    from svd.sampling.load import load_components
    from svd.sampling.request import plan_draws
    from svd.sampling.samplers.adapters import parse_use
    from svd.sampling.session import Session

    subjects = read_inputs(settings, image or [], prompt or [], video or [], orbit or [])
    draws = plan_draws(subjects, first_seed=seed, num_samples=num_samples)
    safety = build_safety_filter(safety_clip, safety_heads)
    trained = models / ("finetune-decoder" if decoder == "temporal" else "autoencoder")
    load = partial(
        load_components,
        autoencoder_dir=autoencoder or trained,
        decoder=decoder,
        placement=PlacementConfig.model_validate(placement),
    )
    uses = tuple(parse_use(text, models=models) for text in lora or [])
    components = load(model, adapters=uses)
    between, between_record = None, None
    if video:
        between, between_record = Interpolator(components, settings), record
    elif interpolate:
        size = {"height": settings.height, "width": settings.width}
        own = {**size, **parse_settings(interpolation_setting or [], "--interpolation-set")}
        between_record, between_settings = resolve(interpolation_model, None, own)
        between = Interpolator(load(interpolation_model), between_settings)
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
        interpolator=between,
        interpolation_sha256=None if between_record is None else between_record.weights_sha256,
    )
    run(session, draws)
