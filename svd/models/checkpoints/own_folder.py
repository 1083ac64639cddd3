"""Our folders: a model.json beside its weights.safetensors, one folder per network.

A whole model, as `svd convert` writes it, is

denoiser/       model.json, weights.safetensors (names of SpatioTemporalUNet)
autoencoder/    model.json, weights.safetensors, temporal_decoder.safetensors
image_encoder/  weights.safetensors (OpenCLIP's names behind `visual.`), where there is one
text_encoder/   weights.safetensors (OpenCLIP's names behind `text.`), where there is one

A training stage's out folder is a `denoiser` or an `autoencoder` of its own. The denoiser's
model.json names its encoder in `extras`; the path of the encoder's weights is relative to it.
"""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from svd.config.base import Section
from svd.config.model import (
    AutoencoderConfig,
    DenoiserConfig,
    ImageEncoderConfig,
    TextEncoderConfig,
)
from svd.errors import CheckpointError, MissingInputError
from svd.models.checkpoints.checkpoint import Checkpoint, Part, Tensors, is_image_decoder
from svd.models.checkpoints.layout import JsonFile, TensorFile
from svd.models.checkpoints.tensor_file import LazyTensor, from_tensor, read_safetensors
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.text_encoder import TextEncoder
from svd.models.networks.unet import is_temporal
from svd.runtime.fingerprint import file_sha256
from svd.types.artifact import ModelRecord

RECORD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
TEMPORAL_DECODER_FILE = "temporal_decoder.safetensors"
TEMPORAL_DECODER_SHA256 = "temporal_decoder_sha256"  # key of the extras, where one was trained here
_IMAGE_ENCODER, _TEXT_ENCODER = "image_encoder", "text_encoder"
_VISUAL, _TEXT = "visual.", "text."
_FOREIGN = "converted"  # in place of fingerprints that a foreign model has not

S = TypeVar("S", bound=Section)


def is_own_folder(folder: Path) -> bool:
    """Tell whether a folder is one that a training stage or `svd convert` left."""
    return (folder / RECORD_FILE).is_file() or (folder / "denoiser" / RECORD_FILE).is_file()


def read_own_folder(folder: Path, *, autoencoder: Path | None = None) -> Checkpoint:
    """Return the parts of a converted model, or of a training stage's folder.

    Args:
        folder: A converted model's folder, or a denoiser's.
        autoencoder: The autoencoder's folder; None takes a converted model's own.

    Raises:
        CheckpointError: A record or file is malformed.
        IntegrityError: A model.json is not a record.
        MissingInputError: A file is not there.
    """
    is_whole = (folder / "denoiser").is_dir()
    denoiser = folder / "denoiser" if is_whole else folder
    autoencoder = autoencoder or (folder / "autoencoder" if is_whole else None)
    record = _read_record(denoiser, kind="denoiser")
    config = _section(DenoiserConfig, record.architecture, denoiser)
    checkpoint = Checkpoint(
        unet=Part(config, read_safetensors(denoiser / WEIGHTS_FILE)[0]),
        image_encoder=_read_image_encoder(record, denoiser),
        text_encoder=_read_text_encoder(record, denoiser),
    )
    if autoencoder is None:
        return checkpoint
    return _with_autoencoder(checkpoint, autoencoder)


def _with_autoencoder(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    record = _read_record(folder, kind="autoencoder")
    config = _section(AutoencoderConfig, record.architecture, folder)
    scale = record.extras.get("latent_scale", config.latent_scale)
    if isinstance(scale, float) and scale > 0:
        config = config.model_copy(update={"latent_scale": scale})
    decoder = folder / TEMPORAL_DECODER_FILE
    return Checkpoint(
        unet=checkpoint.unet,
        autoencoder=Part(config, read_safetensors(folder / WEIGHTS_FILE)[0]),
        temporal_decoder=(
            Part(config, read_safetensors(decoder)[0]) if decoder.is_file() else None
        ),
        image_encoder=checkpoint.image_encoder,
        text_encoder=checkpoint.text_encoder,
    )


def _read_image_encoder(record: ModelRecord, folder: Path) -> Part[ImageEncoderConfig] | None:
    tree = record.extras.get(_IMAGE_ENCODER)
    if tree is None:
        return None
    config = _section(ImageEncoderConfig, tree, folder)
    tensors = _encoder_tensors(config.weights, folder, _VISUAL, lambda: ImageEncoder(config))
    return Part(config, tensors)


def _read_text_encoder(record: ModelRecord, folder: Path) -> Part[TextEncoderConfig] | None:
    tree = record.extras.get(_TEXT_ENCODER)
    if tree is None:
        return None
    config = _section(TextEncoderConfig, tree, folder)
    return Part(
        config, _encoder_tensors(config.weights, folder, _TEXT, lambda: TextEncoder(config))
    )


def _encoder_tensors(
    weights: str | None, folder: Path, prefix: str, draw: Callable[[], nn.Module]
) -> dict[str, LazyTensor]:
    """Return an encoder's tensors from its file, or as its seed draws them."""
    if weights is None:
        found = {name: from_tensor(tensor) for name, tensor in draw().state_dict().items()}
    else:
        found = read_safetensors(encoder_file(folder, weights))[0]
    return {n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)}


def encoder_file(folder: Path, weights: str) -> Path:
    """Return the file that a model.json in a folder names: relative to the folder, or as it is."""
    beside = folder / weights
    return beside if beside.is_file() else Path(weights)


def own_files(checkpoint: Checkpoint) -> dict[str, TensorFile | JsonFile]:
    """Return the tensor files of our folder; `write_own_records` adds the records to them.

    Raises:
        CheckpointError: The model has no UNet, or an autoencoder without any decoder.
    """
    if checkpoint.unet is None:
        raise CheckpointError("the model has no UNet")
    files: dict[str, TensorFile | JsonFile] = {
        f"denoiser/{WEIGHTS_FILE}": TensorFile(checkpoint.unet.tensors)
    }
    if checkpoint.autoencoder is not None:
        files[f"autoencoder/{WEIGHTS_FILE}"] = TensorFile(_whole_autoencoder(checkpoint))
    if checkpoint.temporal_decoder is not None:
        tensors = checkpoint.temporal_decoder.tensors
        files[f"autoencoder/{TEMPORAL_DECODER_FILE}"] = TensorFile(tensors)
    if checkpoint.image_encoder is not None:
        tensors = _prefixed(_VISUAL, checkpoint.image_encoder.tensors)
        files[f"{_IMAGE_ENCODER}/{WEIGHTS_FILE}"] = TensorFile(tensors)
    if checkpoint.text_encoder is not None:
        tensors = _prefixed(_TEXT, checkpoint.text_encoder.tensors)
        files[f"{_TEXT_ENCODER}/{WEIGHTS_FILE}"] = TensorFile(tensors)
    return files


def lacks_image_decoder(checkpoint: Checkpoint) -> bool:
    """Tell whether the layout held the encoder side of the autoencoder alone."""
    part = checkpoint.autoencoder
    return part is not None and not any(is_image_decoder(name) for name in part.tensors)


def _whole_autoencoder(checkpoint: Checkpoint) -> Tensors:
    """Return the autoencoder; a missing image decoder is the temporal one's spatial layers."""
    if checkpoint.autoencoder is None:
        raise CheckpointError("the model has no autoencoder")
    config, tensors = checkpoint.autoencoder.config, checkpoint.autoencoder.tensors
    if not lacks_image_decoder(checkpoint):
        return tensors
    if checkpoint.temporal_decoder is None:
        raise CheckpointError("the model has an encoder but no decoder")
    spatial = {
        name: tensor
        for name, tensor in checkpoint.temporal_decoder.tensors.items()
        if not is_temporal(name) and "time_mix_conv" not in name and "mix_factor" not in name
    }
    channels, dtype = config.latent_channels, tensors["quant_conv.weight"].dtype
    return {
        **tensors,
        **_prefixed("decoder.", spatial),
        "post_quant_conv.weight": from_tensor(
            torch.eye(channels, dtype=dtype).reshape(channels, channels, 1, 1)
        ),
        "post_quant_conv.bias": from_tensor(torch.zeros(channels, dtype=dtype)),
    }


def write_own_records(folder: Path, checkpoint: Checkpoint, *, num_frames: int | None) -> None:
    """Write the model.json of each network whose weights lie in a folder.

    Args:
        folder: Holds what `own_files` named.
        checkpoint: What they were made of.
        num_frames: Frames per clip that the model was trained on, which no layout states.
    """
    if checkpoint.unet is not None:
        extras: dict[str, object] = {} if num_frames is None else {"num_frames": num_frames}
        if checkpoint.autoencoder is not None:
            extras["latent_scale"] = checkpoint.autoencoder.config.latent_scale
        for name, part in (
            (_IMAGE_ENCODER, checkpoint.image_encoder),
            (_TEXT_ENCODER, checkpoint.text_encoder),
        ):
            if part is not None:
                weights = f"../{name}/{WEIGHTS_FILE}"
                extras[name] = part.config.model_dump(mode="json") | {"weights": weights}
        _write_record(folder / "denoiser", "denoiser", checkpoint.unet, extras)
    if checkpoint.autoencoder is not None:
        _write_record(folder / "autoencoder", "autoencoder", checkpoint.autoencoder, {})


def _write_record(
    folder: Path,
    kind: Literal["denoiser", "autoencoder"],
    part: Part[DenoiserConfig] | Part[AutoencoderConfig],
    extras: dict[str, object],
) -> None:
    tensors = read_safetensors(folder / WEIGHTS_FILE)[0]
    record = ModelRecord(
        stage="convert",
        kind=kind,
        architecture=part.config.model_dump(mode="json"),
        weights_sha256=file_sha256(folder / WEIGHTS_FILE),
        num_parameters=sum(prod(tensor.shape) for tensor in tensors.values()),
        step=0,
        examples_seen=0,
        params_fingerprint=_FOREIGN,
        dataset_fingerprint=_FOREIGN,
        init_sha256=None,
        run_fingerprint=_FOREIGN,
        extras=extras,
    )
    (folder / RECORD_FILE).write_text(record.canonical_json(), encoding="utf-8")


def _prefixed(prefix: str, tensors: Tensors) -> dict[str, LazyTensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _read_record(folder: Path, *, kind: str) -> ModelRecord:
    path = folder / RECORD_FILE
    if not path.is_file():
        raise MissingInputError(f"{folder} holds no {kind}: {path} is not there")
    record = ModelRecord.parse(path.read_text(encoding="utf-8"), origin=str(path))
    if record.kind != kind:
        raise CheckpointError(f"{folder} holds a model of kind {record.kind}, not {kind}")
    return record


def _section(kind: type[S], tree: object, folder: Path) -> S:
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as err:
        raise CheckpointError(f"{folder / RECORD_FILE}: not a {kind.__name__}: {err}") from err
