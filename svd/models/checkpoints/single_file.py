"""Checkpoints in one file: the released svd*.safetensors, and Stable Diffusion 2.1's.

Behind these prefixes the names are ours. Of the video model's file:

model.diffusion_model.                             UNet
first_stage_model.decoder.                         temporal decoder
first_stage_model.encoder.                         encoder with quant_conv folded in (ComfyUI's)
conditioner.embedders.N.open_clip.model.visual.    vision tower
conditioner.embedders.N.encoder.                   autoencoder of the conditioning frame

Of the image model's file:

model.diffusion_model.                             UNet without temporal layers and added ids
first_stage_model.                                 autoencoder
cond_stage_model.model.                            text tower
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from svd.config.base import Section
from svd.config.model import (
    AutoencoderConfig,
    DenoiserConfig,
    ImageEncoderConfig,
    Preconditioning,
    TextEncoderConfig,
)
from svd.errors import CheckpointError
from svd.models.checkpoints.checkpoint import Checkpoint, Part, Tensors
from svd.models.checkpoints.infer import (
    infer_autoencoder_config,
    infer_image_encoder_config,
    infer_text_encoder_config,
    infer_unet_config,
)
from svd.models.checkpoints.tensor_file import LazyTensor
from svd.models.networks.unet import is_temporal

S = TypeVar("S", bound=Section)
P = TypeVar("P")
Metadata = Mapping[str, str]

_UNET = "model.diffusion_model."
_FIRST_STAGE = "first_stage_model."
_TEMPORAL_DECODER = "first_stage_model.decoder."
_FOLDED_ENCODER = "first_stage_model.encoder."
_VISION = "conditioner.embedders.0.open_clip.model.visual."
_COND_AUTOENCODER = "conditioner.embedders.3.encoder."
_TEXT = "cond_stage_model.model."

# Tensors that no part needs: what is left of a text tower beside the vision tower, tables of the
# noise schedule, averages of the weights (see `use_ema`), and constants.
_UNREAD = re.compile(
    r"conditioner\.embedders\.\d+\.open_clip\.(mean|std|model\.(?!visual\.).*)"
    r"|model_ema\..*|cond_stage_model\.model\.attn_mask|cond_stage_model\.logit_scale"
    r"|denoiser\.sigmas|.*alphas_cumprod.*|betas|posterior_.*|logvar|scale_factor|global_step"
)


def is_video_file(tensors: Tensors) -> bool:
    """Tell whether a single file holds the video model rather than the image model."""
    return any(name.startswith(_UNET) and is_temporal(name) for name in tensors)


def read_video_file(tensors: Tensors, metadata: Metadata, origin: Path) -> Checkpoint:
    """Return the parts of a file in the released svd*.safetensors layout.

    Raises:
        CheckpointError: A tensor belongs to no part, or an architecture is not recognised.
    """
    left = dict(tensors)
    unet = _take(left, re.escape(_UNET))
    temporal_decoder = _take(left, re.escape(_TEMPORAL_DECODER))
    _take(left, re.escape(_FOLDED_ENCODER))  # made of the autoencoder below
    autoencoder = _take(left, r"conditioner\.embedders\.\d+\.encoder\.")
    vision = _take(left, r"conditioner\.embedders\.\d+\.open_clip\.model\.visual\.")
    _refuse_unknown(left, origin)
    denoiser = _stated(metadata, "denoiser", DenoiserConfig, origin) or DenoiserConfig(
        unet=_inferred(infer_unet_config, unet, origin)
    )
    config = _stated(metadata, "autoencoder", AutoencoderConfig, origin) or _inferred(
        infer_autoencoder_config, autoencoder, origin
    )
    image = _stated(metadata, "image_encoder", ImageEncoderConfig, origin)
    if vision and image is None:
        image = _inferred(infer_image_encoder_config, vision, origin)
    return Checkpoint(
        unet=Part(denoiser, unet),
        autoencoder=Part(config, autoencoder),
        temporal_decoder=Part(config, temporal_decoder) if temporal_decoder else None,
        image_encoder=Part(image, vision) if vision and image else None,
    )


def read_image_file(
    tensors: Tensors,
    metadata: Metadata,
    origin: Path,
    *,
    preconditioning: Preconditioning,
    use_ema: bool,
) -> Checkpoint:
    """Return the parts of a file in Stable Diffusion 2.1's layout.

    Args:
        tensors: The file's tensors.
        metadata: The file's metadata; states the architecture if we wrote the file.
        origin: The file.
        preconditioning: What its UNet predicts, which the file does not say: "sd-v" for the
            768 model, "sd-eps" for the 512 base model.
        use_ema: Take the averaged weights of the UNet, which some files hold beside the others.

    Raises:
        CheckpointError: A tensor belongs to no part, an architecture is not recognised, or there
            are no averaged weights.
    """
    left = dict(tensors)
    unet = _take(left, re.escape(_UNET))
    if use_ema:
        unet = {name: _averaged(tensors, name, origin) for name in unet}
    autoencoder = _take(left, re.escape(_FIRST_STAGE))
    text = _take(left, re.escape(_TEXT))
    _refuse_unknown(left, origin)
    denoiser = _stated(metadata, "denoiser", DenoiserConfig, origin) or DenoiserConfig(
        unet=_inferred(infer_unet_config, unet, origin), preconditioning=preconditioning
    )
    config = _stated(metadata, "autoencoder", AutoencoderConfig, origin)
    if autoencoder and config is None:
        config = _inferred(infer_autoencoder_config, autoencoder, origin)
    text_config = _stated(metadata, "text_encoder", TextEncoderConfig, origin)
    if text and text_config is None:
        text_config = _inferred(infer_text_encoder_config, text, origin)
    return Checkpoint(
        unet=Part(denoiser, unet),
        autoencoder=Part(config, autoencoder) if autoencoder and config else None,
        text_encoder=Part(text_config, text) if text and text_config else None,
    )


def _take(left: dict[str, LazyTensor], prefix: str) -> dict[str, LazyTensor]:
    """Move the tensors behind a prefix (a regular expression) out of a dict."""
    pattern = re.compile(prefix)
    taken = [(name, match) for name in left if (match := pattern.match(name))]
    return {name[match.end() :]: left.pop(name) for name, match in taken}


def _averaged(tensors: Tensors, name: str, origin: Path) -> LazyTensor:
    # The average keeps names of the wrapped network without their dots.
    ema = "model_ema." + f"diffusion_model.{name}".replace(".", "")
    if ema not in tensors:
        raise CheckpointError(f"{origin}: has no averaged weights of {name}")
    return tensors[ema]


def _refuse_unknown(left: Tensors, origin: Path) -> None:
    unknown = [name for name in left if not _UNREAD.fullmatch(name)]
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise CheckpointError(
            f"{origin}: {len(unknown)} tensors belong to no part of the model: "
            f"{', '.join(unknown[:8])}{more}"
        )


def _inferred(infer: Callable[[Tensors], S], tensors: Tensors, origin: Path) -> S:
    try:
        return infer(tensors)
    except (CheckpointError, ValidationError, IndexError, ValueError) as err:
        raise CheckpointError(f"{origin}: architecture not recognised: {err}") from err


def _stated(metadata: Metadata, key: str, kind: type[S], origin: Path) -> S | None:
    text = metadata.get(f"svd.{key}")
    if text is None:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError as err:
        raise CheckpointError(f"{origin}: metadata svd.{key} is not a {kind.__name__}") from err


def video_file(checkpoint: Checkpoint) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Return tensors and metadata of the released layout.

    Raises:
        CheckpointError: The model has no video UNet, autoencoder or temporal decoder.
    """
    unet, autoencoder, decoder = (
        _needed(checkpoint.unet, "UNet"),
        _needed(checkpoint.autoencoder, "autoencoder"),
        _needed(checkpoint.temporal_decoder, "temporal decoder"),
    )
    if not any(is_temporal(name) for name in unet.tensors):
        raise CheckpointError("the released layout is the video model's; this UNet has no time")
    tensors = _prefixed(_UNET, unet.tensors)
    tensors |= _prefixed(_TEMPORAL_DECODER, decoder.tensors)
    tensors |= _prefixed(_FIRST_STAGE, _fold_quant_conv(autoencoder.tensors))
    tensors |= _prefixed(_COND_AUTOENCODER, autoencoder.tensors)
    configs: dict[str, Section] = {"denoiser": unet.config, "autoencoder": autoencoder.config}
    if checkpoint.image_encoder is not None:
        tensors |= _prefixed(_VISION, checkpoint.image_encoder.tensors)
        configs["image_encoder"] = checkpoint.image_encoder.config
    return tensors, _metadata(configs)


def image_file(checkpoint: Checkpoint) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Return tensors and metadata of Stable Diffusion 2.1's layout: the image part of a model.

    Raises:
        CheckpointError: The model has no UNet, or its UNet also reads conditioning latents.
    """
    unet = _needed(checkpoint.unet, "UNet")
    if unet.config.unet.in_channels != unet.config.unet.out_channels:
        raise CheckpointError(
            f"Stable Diffusion's layout has no conditioning latents; this UNet reads "
            f"{unet.config.unet.in_channels} channels and writes {unet.config.unet.out_channels}"
        )
    spatial = {
        name: tensor
        for name, tensor in unet.tensors.items()
        if not is_temporal(name) and not name.startswith("label_emb.")
    }
    tensors = _prefixed(_UNET, spatial)
    configs: dict[str, Section] = {"denoiser": unet.config}
    if checkpoint.autoencoder is not None:
        tensors |= _prefixed(_FIRST_STAGE, checkpoint.autoencoder.tensors)
        configs["autoencoder"] = checkpoint.autoencoder.config
    if checkpoint.text_encoder is not None:
        tensors |= _prefixed(_TEXT, checkpoint.text_encoder.tensors)
        configs["text_encoder"] = checkpoint.text_encoder.config
    return tensors, _metadata(configs)


def _needed(part: P | None, what: str) -> P:
    if part is None:
        raise CheckpointError(f"the model has no {what}, which this layout needs")
    return part


def _prefixed(prefix: str, tensors: Tensors) -> dict[str, LazyTensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _metadata(configs: Mapping[str, Section]) -> dict[str, str]:
    return {
        f"svd.{key}": json.dumps(_without_paths(config), sort_keys=True)
        for key, config in configs.items()
    }


def _without_paths(config: Section) -> dict[str, object]:
    tree: dict[str, object] = config.model_dump(mode="json")
    return {key: value for key, value in tree.items() if key != "weights"}


def _fold_quant_conv(tensors: Tensors) -> dict[str, LazyTensor]:
    """Return the encoder with the 1x1 quant_conv multiplied into its last convolution; exact."""
    encoder = {n: tensor for n, tensor in tensors.items() if n.startswith("encoder.")}
    quant_weight, quant_bias = tensors["quant_conv.weight"], tensors["quant_conv.bias"]
    weight, bias = encoder["encoder.conv_out.weight"], encoder["encoder.conv_out.bias"]

    def mix(values: Tensor) -> Tensor:
        matrix = quant_weight.load().double().flatten(1)
        return torch.einsum("om,m...->o...", matrix, values.double())

    encoder["encoder.conv_out.weight"] = LazyTensor(
        weight.shape, weight.dtype, lambda: mix(weight.load()).to(weight.dtype)
    )
    encoder["encoder.conv_out.bias"] = LazyTensor(
        bias.shape,
        bias.dtype,
        lambda: (mix(bias.load()) + quant_bias.load().double()).to(bias.dtype),
    )
    return encoder
