"""Components from the folders that stages and `svd convert` leave.

A denoiser's folder holds model.json (ModelRecord) and weights.safetensors (the UNet's names). Its
`architecture` is the DenoiserConfig; its `extras` name the encoder it was conditioned by, the
scale of its latents, and what it was trained on. An autoencoder's folder holds the same of an
autoencoder, and temporal_decoder.safetensors where one was trained.
"""

import json
from collections.abc import Callable
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
from svd.config.sampling import PlacementConfig
from svd.errors import CheckpointError, IntegrityError, MissingInputError
from svd.models.checkpoints.own_folder import (
    TEMPORAL_DECODER_FILE,
    TEMPORAL_DECODER_SHA256,
    encoder_file,
)
from svd.models.checkpoints.weights import load_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.denoiser import Denoiser
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.text_encoder import TextEncoder
from svd.runtime.fingerprint import file_sha256
from svd.sampling.samplers.adapters import AdapterUse, attach
from svd.sampling.samplers.components import Components, dtype_of, pick_device
from svd.sampling.samplers.record import RECORD_FILE, read_model_record
from svd.types.artifact import ModelRecord
from svd.types.orbit import POSE_ANGLES, PoseAngle

S = TypeVar("S", bound=Section)
E = TypeVar("E", ImageEncoderConfig, TextEncoderConfig)
M = TypeVar("M", bound=nn.Module)

WEIGHTS_FILE = "weights.safetensors"


def load_components(
    model_dir: Path,
    autoencoder_dir: Path,
    *,
    placement: PlacementConfig = PlacementConfig(),  # noqa: B008 (frozen)
    adapters: tuple[AdapterUse, ...] = (),
    decoder: Literal["image", "temporal"] | None = None,
) -> Components:
    """Load a denoiser with its adapters, its autoencoder and its encoder.

    Args:
        model_dir: A denoiser's folder.
        autoencoder_dir: An autoencoder's folder.
        placement: Device and precision.
        adapters: Attached to the denoiser, at full strength until a sampler sets it.
        decoder: Which of the autoencoder's decoders; None is the temporal one if it has one.

    Raises:
        MissingInputError: A folder, a file or the temporal decoder is not there.
        IntegrityError: Weights are not those that model.json names.
        CheckpointError: Weights or an adapter do not fit the architecture.
        ConfigError: The device is not there.
    """
    device = pick_device(placement.device)
    record = read_model_record(model_dir, kind="denoiser")
    autoencoder, temporal_decoder, scale = load_autoencoder(autoencoder_dir)
    if decoder == "image":
        temporal_decoder = None
    elif decoder == "temporal" and temporal_decoder is None:
        raise MissingInputError(
            f"{autoencoder_dir} has no temporal decoder; svd finetune-decoder trains one"
        )
    config = _section(DenoiserConfig, record.architecture, model_dir)
    denoiser = _unfilled(lambda: Denoiser(config))
    load_weights(denoiser.unet, _checked_weights(model_dir, record))
    if placement.compile_blocks:
        denoiser.unet.compile_blocks()
    image, text = record.extras.get("image_encoder"), record.extras.get("text_encoder")
    dtype, autoencoder_dtype = (
        dtype_of(placement.precision),
        dtype_of(placement.autoencoder_precision),
    )
    denoiser = denoiser.to(dtype)
    attach(denoiser.unet, adapters)
    components = Components(
        denoiser=denoiser,
        autoencoder=autoencoder.to(autoencoder_dtype),
        temporal_decoder=temporal_decoder and temporal_decoder.to(autoencoder_dtype),
        image_encoder=(
            ImageEncoder(_encoder_section(ImageEncoderConfig, image, model_dir)).to(dtype)
            if image
            else None
        ),
        text_encoder=(
            TextEncoder(_encoder_section(TextEncoderConfig, text, model_dir)).to(dtype)
            if text
            else None
        ),
        adapters=adapters,
        pose=_pose(record),
        latent_scale=_latent_scale(record, default=scale),
        device=device,
        offload=placement.offload,
    )
    components.freeze()
    return components


def load_autoencoder(folder: Path) -> tuple[Autoencoder, TemporalDecoder | None, float]:
    """Return an autoencoder, its temporal decoder if one was trained, and the latents' scale.

    Raises:
        MissingInputError: The folder or a file is not there.
        IntegrityError: Weights are not those that model.json names.
        CheckpointError: Weights do not fit the architecture.
    """
    record = read_model_record(folder, kind="autoencoder")
    config = _section(AutoencoderConfig, record.architecture, folder)
    autoencoder = _unfilled(lambda: Autoencoder(config))
    load_weights(autoencoder, _checked_weights(folder, record))
    scale = _latent_scale(record, default=config.latent_scale)
    path = folder / TEMPORAL_DECODER_FILE
    if not path.is_file():
        return autoencoder, None, scale
    named = record.extras.get(TEMPORAL_DECODER_SHA256)
    if named is not None and file_sha256(path) != named:
        raise IntegrityError(f"{path} is not the temporal decoder that its {RECORD_FILE} names")
    decoder = _unfilled(lambda: TemporalDecoder(config))
    load_weights(decoder, path)
    return autoencoder, decoder, scale


def _unfilled(make: Callable[[], M]) -> M:
    """Build a network without drawing the weights that a file will overwrite."""
    with torch.device("meta"):
        module = make()
    return module.to_empty(device="cpu")


def _checked_weights(folder: Path, record: ModelRecord) -> Path:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise MissingInputError(f"no weights at {path}: fetch them, or run stage {record.stage}")
    found = file_sha256(path)
    if found != record.weights_sha256:
        raise IntegrityError(
            f"{path} has sha256 {found}, its {RECORD_FILE} names {record.weights_sha256}"
        )
    return path


def _latent_scale(record: ModelRecord, *, default: float) -> float:
    scale = record.extras.get("latent_scale", default)
    if not isinstance(scale, int | float) or scale <= 0:
        raise CheckpointError(f"latent_scale={scale!r} of {record.stage} is not a positive number")
    return float(scale)


def _pose(record: ModelRecord) -> tuple[PoseAngle, ...]:
    named = record.extras.get("pose", [])
    told = tuple(angle for angle in POSE_ANGLES if isinstance(named, list) and angle in named)
    if not isinstance(named, list) or list(told) != named:
        raise CheckpointError(
            f"pose={named!r} of {record.stage} is no list of {', '.join(POSE_ANGLES)}"
        )
    return told


def _encoder_section(kind: type[E], tree: object, folder: Path) -> E:
    """Return an encoder's configuration with the path of its weights as seen from here."""
    config = _section(kind, tree, folder)
    if config.weights is None:
        return config
    return config.model_copy(update={"weights": str(encoder_file(folder, config.weights))})


def _section(kind: type[S], tree: object, folder: Path) -> S:
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as err:
        raise CheckpointError(f"{folder / RECORD_FILE}: not a {kind.__name__}: {err}") from err
