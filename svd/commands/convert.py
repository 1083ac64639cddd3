"""`svd convert`: a model from one layout to another."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from svd.errors import ConfigError


def add_commands(root: typer.Typer) -> None:
    """Hang the command on the root."""
    root.command(rich_help_panel="Models")(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of ours or of diffusers, a released svd*.safetensors, or Stable "
            "Diffusion 2.1's .safetensors or .ckpt. Its layout is recognised."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="The new file or folder.")],
    to: Annotated[
        Literal["ours", "released", "diffusers", "sd21"], typer.Option(help="Layout to write.")
    ] = "ours",
    autoencoder: Annotated[
        Path | None,
        typer.Option(help="The autoencoder's folder, if SOURCE is a training stage's folder."),
    ] = None,
    prediction: Annotated[
        Literal["v", "eps"],
        typer.Option(help="What a Stable Diffusion 2.1 file predicts: v (768), eps (512 base)."),
    ] = "v",
    ema: Annotated[
        bool, typer.Option("--ema", help="Take a Stable Diffusion 2.1 file's averaged weights.")
    ] = False,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="Adapter NAME[:SCALE] to merge into the weights, as in svd sample. Repeat to mix."
        ),
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames per clip: 14 for svd, 25 for svd_xt.")
    ] = None,
) -> None:
    """Convert a model between our layout, the released one, diffusers and Stable Diffusion 2.1.

    With --lora, adapters are merged into the weights, so that the new model needs no adapter files.

    Missing, extra or mis-shaped tensors stop with a list, and nothing half-written is left.
    """
    from svd.commands.sample_parts import find_models
    from svd.models.checkpoints.convert import convert as convert_model
    from svd.models.checkpoints.merge import AdapterFile
    from svd.sampling.samplers.adapters import parse_use

    uses = [parse_use(text, models=find_models()) for text in lora or []]
    if any(use.is_ranged for use in uses):
        raise ConfigError("--lora: a range of frames cannot be merged into weights")
    conversion = convert_model(
        source,
        target,
        layout=to,
        autoencoder=autoencoder,
        preconditioning="sd-v" if prediction == "v" else "sd-eps",
        use_ema=ema,
        num_frames=num_frames,
        adapters=[AdapterFile(use.path, use.scale) for use in uses],
    )
    for note in conversion.notes:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{target}: {conversion.num_tensors} tensors, {conversion.size_bytes / 1e9:.2f} GB, "
        f"from {conversion.source_layout} to {to}"
    )
