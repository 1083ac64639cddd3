"""From any known layout of a model to any other, one tensor in memory at a time."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from svd.config.model import Preconditioning
from svd.errors import CheckpointError, ConfigError, MissingInputError
from svd.models.checkpoints.checkpoint import Checkpoint
from svd.models.checkpoints.diffusers_export import diffusers_files
from svd.models.checkpoints.diffusers_folder import INDEX_FILE, read_diffusers_folder
from svd.models.checkpoints.layout import JsonFile, TensorFile
from svd.models.checkpoints.merge import AdapterFile, merge_files
from svd.models.checkpoints.own_folder import (
    is_own_folder,
    lacks_image_decoder,
    own_files,
    read_own_folder,
    write_own_records,
)
from svd.models.checkpoints.single_file import (
    image_file,
    is_video_file,
    read_image_file,
    read_video_file,
    video_file,
)
from svd.models.checkpoints.tensor_file import read_pickled, read_safetensors, write_safetensors

logger = logging.getLogger(__name__)

Layout = Literal["ours", "released", "diffusers", "sd21"]
_PICKLED = (".ckpt", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted.

    Attributes:
        source_layout: What the source was.
        num_tensors: Tensors written.
        size_bytes: Of the tensors written.
        notes: Sentences on what the target layout made necessary.
    """

    source_layout: Layout
    num_tensors: int
    size_bytes: int
    notes: tuple[str, ...]


def convert(
    source: Path,
    target: Path,
    *,
    layout: Layout,
    autoencoder: Path | None = None,
    preconditioning: Preconditioning = "sd-v",
    use_ema: bool = False,
    num_frames: int | None = None,
    adapters: Sequence[AdapterFile] = (),
) -> Conversion:
    """Write a model in another layout; nothing is left behind if that fails.

    Args:
        source: A file or folder; its layout is recognised by what it holds.
        target: A new file ("released", "sd21") or folder ("ours", "diffusers").
        layout: What to write.
        autoencoder: The autoencoder's folder, where the source is a training stage's folder.
        preconditioning: What the UNet of a Stable Diffusion 2.1 file predicts.
        use_ema: Take the averaged weights of a Stable Diffusion 2.1 file.
        num_frames: Frames per clip of the model, stated in our model.json.
        adapters: Merged into the UNet's weights.

    Raises:
        CheckpointError: Tensors are missing, extra, mis-shaped or not finite, the file is
            malformed or unsafe, or the target layout cannot hold the model.
        ConfigError: The target exists, or an option does not fit the source.
        IntegrityError: A model.json is not a record.
        MissingInputError: The source, or a file of it, is not there.
    """
    if target.exists():
        raise ConfigError(f"{target} exists already: name a new one, or remove it")
    found, checkpoint = read_checkpoint(
        source, autoencoder=autoencoder, preconditioning=preconditioning, use_ema=use_ema
    )
    checkpoint.check(str(source))
    if adapters:
        if checkpoint.unet is None:
            raise ConfigError(f"{source} has no UNet, so adapters have nothing to be merged into")
        checkpoint = replace(checkpoint, unet=merge_files(checkpoint.unet, adapters))
    if layout == "ours":
        files = own_files(checkpoint)
        _write_folder(target, files, checkpoint, origin=source, num_frames=num_frames)
    elif layout == "diffusers":
        files = diffusers_files(checkpoint)
        _write_folder(target, files, None, origin=source, num_frames=None)
    else:
        tensors, metadata = (video_file if layout == "released" else image_file)(checkpoint)
        files = {target.name: TensorFile(tensors, metadata)}
        write_safetensors(
            target,
            tensors,
            origin=source,
            description=f"writing {target}",
            metadata=metadata,
        )
    written = [file for file in files.values() if isinstance(file, TensorFile)]
    conversion = Conversion(
        source_layout=found,
        num_tensors=sum(len(file.tensors) for file in written),
        size_bytes=sum(t.size_bytes for file in written for t in file.tensors.values()),
        notes=_notes(checkpoint, layout),
    )
    logger.info(
        "model converted",
        extra={"source": source, "target": target, "from": found, "to": layout},
    )
    return conversion


def read_checkpoint(
    source: Path,
    *,
    autoencoder: Path | None = None,
    preconditioning: Preconditioning = "sd-v",
    use_ema: bool = False,
) -> tuple[Layout, Checkpoint]:
    """Return the layout of a source, and its parts with their tensors unread.

    Raises:
        CheckpointError: The source is of no known layout, malformed or unsafe.
        ConfigError: An option does not fit the source.
        MissingInputError: The source, or a file of it, is not there.
    """
    if not source.exists():
        raise MissingInputError(f"{source} is not there")
    if autoencoder is not None and not (source.is_dir() and is_own_folder(source)):
        raise ConfigError(f"--autoencoder goes with a training stage's folder; {source} is none")
    if source.is_file():
        return _read_file(source, preconditioning=preconditioning, use_ema=use_ema)
    if is_own_folder(source):
        return "ours", read_own_folder(source, autoencoder=autoencoder)
    if (source / INDEX_FILE).is_file():
        return "diffusers", read_diffusers_folder(source)
    raise CheckpointError(
        f"{source} is no model: it has neither {INDEX_FILE} (diffusers) nor model.json (ours)"
    )


def _read_file(
    path: Path, *, preconditioning: Preconditioning, use_ema: bool
) -> tuple[Layout, Checkpoint]:
    is_pickled = path.suffix in _PICKLED
    tensors, metadata = read_pickled(path) if is_pickled else read_safetensors(path)
    if is_video_file(tensors):
        if use_ema:
            raise ConfigError(f"{path} is a video model's file, which holds no averaged weights")
        return "released", read_video_file(tensors, metadata, path)
    checkpoint = read_image_file(
        tensors, metadata, path, preconditioning=preconditioning, use_ema=use_ema
    )
    return "sd21", checkpoint


def _write_folder(
    target: Path,
    files: Mapping[str, TensorFile | JsonFile],
    records_of: Checkpoint | None,
    *,
    origin: Path,
    num_frames: int | None,
) -> None:
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, file in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(file, TensorFile):
                write_safetensors(
                    path,
                    file.tensors,
                    origin=origin,
                    description=f"writing {name}",
                    metadata=file.metadata,
                )
            else:
                path.write_text(json.dumps(file, indent=2) + "\n", encoding="utf-8")
        if records_of is not None:
            write_own_records(partial, records_of, num_frames=num_frames)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _notes(checkpoint: Checkpoint, layout: Layout) -> tuple[str, ...]:
    notes = []
    if layout == "ours" and lacks_image_decoder(checkpoint):
        notes.append(
            "the source has no frame-wise decoder; the temporal decoder's spatial layers stand in "
            "for it in autoencoder/weights.safetensors"
        )
    if layout == "diffusers":
        notes.append(
            "diffusers builds most residual blocks with eps 1e-6 instead of 1e-5; expect outputs "
            "that differ by about 1e-5 from ours"
        )
    if layout in {"released", "diffusers"} and checkpoint.text_encoder is not None:
        notes.append(f"the {layout} layout has no place for the text encoder, which is left out")
    return tuple(notes)
