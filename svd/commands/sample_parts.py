"""What `svd sample` builds from its options before anything is sampled, and how it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from svd.errors import ConfigError

if TYPE_CHECKING:
    from svd.config.sampling import SamplingConfig
    from svd.sampling.request import Draw, Subject
    from svd.sampling.safety import SafetyFilter
    from svd.sampling.session import Session
    from svd.types.artifact import ModelRecord


def find_models() -> Path:
    """Return the folder of the checkout's models; outside one, `models` in the current folder.

    A converted model needs no checkout.
    """
    from svd.runtime.workspace import Workspace

    try:
        return Workspace.find().root / "models"
    except ConfigError:
        return Path("models")


def check_inputs(
    kinds: Sequence[str], *, interpolate: bool, segments: int, has_lora: bool, has_elevation: bool
) -> None:
    """Refuse options that do not go together; kinds are the kinds of input that were given."""
    if len(kinds) != 1:
        raise ConfigError(
            "give pictures (--image, --orbit), prompts (--prompt) or videos (--video): one kind"
        )
    if segments > 1 and kinds != ["--image"]:
        raise ConfigError("--segments continues from a picture; it needs --image")
    if kinds == ["--video"] and not interpolate:
        raise ConfigError("--video is for --interpolate, which puts new frames between its own")
    if kinds == ["--video"] and has_lora:
        raise ConfigError("--lora is for what is sampled from pictures or prompts, not for --video")
    if has_elevation and kinds != ["--orbit"]:
        raise ConfigError("--elevation is where the camera of an --orbit stands")


def check_multiview(record: "ModelRecord", model: Path) -> None:
    """Refuse a model that does not go around objects."""
    if record.extras.get("objective") != "orbit":
        raise ConfigError(
            f"--orbit needs a multi-view model, and {model} is from {record.stage}: train one with "
            "svd finetune-multiview video-prior"
        )


def parse_settings(pairs: Sequence[str], option: str) -> dict[str, object]:
    """Return dotted keys and values of KEY=VALUE pairs; option is what the error names."""
    import yaml

    settings: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ConfigError(
                f"{option} {pair}: write it as KEY=VALUE, e.g. {option} schedule.rho=5"
            )
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError as err:
            raise ConfigError(f"{option} {pair}: {text!r} is not YAML") from err
    return settings


def resolve(
    model: Path, file: Path | None, flags: Mapping[str, object]
) -> "tuple[ModelRecord, SamplingConfig]":
    """Return model.json and the settings in force."""
    from svd.sampling.request import resolve_settings
    from svd.sampling.samplers.record import read_model_record

    record = read_model_record(model, kind="denoiser")
    given = {key: value for key, value in flags.items() if value is not None}
    return record, resolve_settings(record, file, given)


def read_inputs(
    settings: "SamplingConfig",
    images: Sequence[Path],
    prompts: Sequence[str],
    videos: Sequence[Path],
    orbits: Sequence[Path],
) -> "tuple[Subject, ...]":
    """Read what videos are made from, at the size that is sampled."""
    from svd.sampling.request import prompt_subjects, read_subjects, video_subjects

    size = {"height": settings.height, "width": settings.width}
    if videos:
        return video_subjects(videos, **size)
    if orbits:
        return read_subjects(orbits, height=settings.height, width=settings.width, whole=True)
    if prompts:
        return prompt_subjects(prompts)
    return read_subjects(images, height=settings.height, width=settings.width)


def build_safety_filter(clip: Path | None, heads: Path | None) -> "SafetyFilter | None":
    """Return the release's filter, if its weights are given."""
    from svd.sampling.safety import release_filter

    if clip is None and heads is None:
        return None
    if clip is None or heads is None:
        raise ConfigError("the safety filter needs both --safety-clip and --safety-heads")
    return release_filter(clip, heads)


def run(session: "Session", draws: "Sequence[Draw]") -> None:
    """Sample, print each file as it is written, and show how much is left."""
    import torch

    from svd.runtime.progress import track
    from svd.sampling.session import run_session

    total = session.num_steps(draws)
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
