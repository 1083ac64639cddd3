"""Reading folders of diffusers: StableVideoDiffusionPipeline's and Stable Diffusion 2.1's."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from svd.config.model import (
    AutoencoderConfig,
    DenoiserConfig,
    ImageEncoderConfig,
    Preconditioning,
    TextEncoderConfig,
    UNetConfig,
)
from svd.errors import CheckpointError, MissingInputError
from svd.models.checkpoints.checkpoint import Checkpoint, Part, Tensors
from svd.models.checkpoints.clip_maps import text_from_transformers, vision_from_transformers
from svd.models.checkpoints.infer import infer_image_encoder_config, infer_text_encoder_config
from svd.models.checkpoints.key_maps import (
    autoencoder_to_diffusers,
    inverse,
    temporal_decoder_to_diffusers,
    unet_to_diffusers,
)
from svd.models.checkpoints.tensor_file import LazyTensor, read_safetensors
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.unet import SpatioTemporalUNet, is_temporal

INDEX_FILE = "model_index.json"
IMAGE_VAE = "image_vae"  # our addition: the frame-wise autoencoder, which the pipeline lacks
_WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.safetensors",
    "model.fp16.safetensors",
)
_VIDEO_UNET = "UNetSpatioTemporalConditionModel"
_ADDED_COND_DIM = 768  # of the video model that an image model without added ids becomes
_PREDICTIONS: dict[str, Preconditioning] = {"v_prediction": "sd-v", "epsilon": "sd-eps"}

T = TypeVar("T")


def read_diffusers_folder(folder: Path) -> Checkpoint:
    """Return the parts of a StableVideoDiffusionPipeline or Stable Diffusion 2.1 folder.

    Raises:
        CheckpointError: A file is malformed, or a tensor belongs to no part.
        MissingInputError: A file is not there.
    """
    unet_tree = _read_json(folder / "unet" / "config.json")
    is_video = unet_tree.get("_class_name") == _VIDEO_UNET
    unet_config = _described(folder / "unet", lambda: _unet_config(unet_tree))
    preconditioning = _preconditioning(folder, is_video=is_video)
    vae_config = _described(
        folder / "vae", lambda: _autoencoder_config(_read_json(folder / "vae" / "config.json"))
    )
    vae = _read_tensors(folder / "vae")
    return Checkpoint(
        unet=Part(
            DenoiserConfig(unet=unet_config, preconditioning=preconditioning),
            _read_unet(folder / "unet", unet_config, is_video=is_video),
        ),
        autoencoder=Part(vae_config, _read_autoencoder(folder, vae, vae_config)),
        temporal_decoder=(
            Part(vae_config, _read_temporal_decoder(vae, vae_config)) if is_video else None
        ),
        image_encoder=_read_image_encoder(folder / "image_encoder"),
        text_encoder=_read_text_encoder(folder / "text_encoder"),
    )


def _read_unet(folder: Path, config: UNetConfig, *, is_video: bool) -> dict[str, LazyTensor]:
    num_blocks = config.num_res_blocks
    names = _names(lambda: SpatioTemporalUNet(config))
    if is_video:
        to_ours = inverse(names, lambda name: unet_to_diffusers(name, num_res_blocks=num_blocks))
    else:
        to_ours = inverse(
            (name for name in names if not is_temporal(name)),
            lambda name: image_unet_to_diffusers(name, num_res_blocks=num_blocks),
        )
    return _renamed(_read_tensors(folder), to_ours)


def image_unet_to_diffusers(name: str, *, num_res_blocks: int = 2) -> str:
    """Return the name of a spatial tensor in diffusers' image UNet."""
    return unet_to_diffusers(name, num_res_blocks=num_res_blocks).replace("spatial_res_block.", "")


def _read_autoencoder(
    folder: Path, vae: Tensors, config: AutoencoderConfig
) -> dict[str, LazyTensor]:
    """Return the frame-wise autoencoder, or its encoder side alone if that is all there is."""
    if (folder / IMAGE_VAE).is_dir():
        vae = _read_tensors(folder / IMAGE_VAE)
    is_temporal_vae = any("time" in name or "temporal" in name for name in vae)
    names, levels = _names(lambda: Autoencoder(config)), len(config.channel_mult)
    to_ours = inverse(names, lambda name: autoencoder_to_diffusers(name, num_levels=levels))
    own = {n: tensor for n, tensor in vae.items() if not (is_temporal_vae and _is_decoder(n))}
    return _convolutions(_renamed(own, to_ours))


def _read_temporal_decoder(vae: Tensors, config: AutoencoderConfig) -> dict[str, LazyTensor]:
    names = _names(lambda: TemporalDecoder(config))
    levels = len(config.channel_mult)
    to_ours = inverse(names, lambda name: temporal_decoder_to_diffusers(name, num_levels=levels))
    own = {name: tensor for name, tensor in vae.items() if _is_decoder(name)}
    return _convolutions(_renamed(own, to_ours))


def _is_decoder(name: str) -> bool:
    return name.startswith("decoder.")


def _convolutions(tensors: Tensors) -> dict[str, LazyTensor]:
    """Give the attention's matrices back the shape of 1x1 convolutions."""
    return {
        name: tensor.reshaped(*tensor.shape, 1, 1)
        if ".attn_1." in name and len(tensor.shape) == 2
        else tensor
        for name, tensor in tensors.items()
    }


def _read_image_encoder(folder: Path) -> Part[ImageEncoderConfig] | None:
    if not folder.is_dir():
        return None
    tensors = vision_from_transformers(_read_tensors(folder))
    tree = _read_json(folder / "config.json")
    return Part(_described(folder, lambda: _image_encoder_config(tree, tensors)), tensors)


def _image_encoder_config(tree: dict[str, Any], tensors: Tensors) -> ImageEncoderConfig:
    if tree["hidden_size"] != tree["projection_dim"]:  # no tiny tower has two widths
        return infer_image_encoder_config(tensors)
    return ImageEncoderConfig(
        kind="tiny",
        width=tree["hidden_size"],
        layers=tree["num_hidden_layers"],
        heads=tree["num_attention_heads"],
        image_size=tree["image_size"],
        patch_size=tree["patch_size"],
    )


def _read_text_encoder(folder: Path) -> Part[TextEncoderConfig] | None:
    if not folder.is_dir():
        return None
    tensors = text_from_transformers(_read_tensors(folder))
    return Part(_described(folder, lambda: infer_text_encoder_config(tensors)), tensors)


def _unet_config(tree: dict[str, Any]) -> UNetConfig:
    widths = tree["block_out_channels"]
    attends = [kind.startswith("CrossAttn") for kind in tree["down_block_types"]]
    heads = tree.get("num_attention_heads") or tree["attention_head_dim"]
    heads = heads if isinstance(heads, list) else [heads] * len(widths)
    head_dims = {width // num for width, num in zip(widths, heads, strict=True)}
    if len(head_dims) != 1:
        raise CheckpointError(f"heads have different widths: {sorted(head_dims)} channels")
    return UNetConfig(
        in_channels=tree["in_channels"],
        out_channels=tree["out_channels"],
        model_channels=widths[0],
        channel_mult=tuple(width // widths[0] for width in widths),
        num_res_blocks=tree["layers_per_block"],
        attention_factors=tuple(2**level for level, flag in enumerate(attends) if flag),
        head_dim=head_dims.pop(),
        context_dim=tree["cross_attention_dim"],
        added_cond_dim=tree.get("projection_class_embeddings_input_dim") or _ADDED_COND_DIM,
        added_id_dim=tree.get("addition_time_embed_dim") or 256,
    )


def _autoencoder_config(tree: dict[str, Any]) -> AutoencoderConfig:
    widths = tree["block_out_channels"]
    return AutoencoderConfig(
        pixel_channels=tree["in_channels"],
        latent_channels=tree["latent_channels"],
        base_channels=widths[0],
        channel_mult=tuple(width // widths[0] for width in widths),
        num_res_blocks=tree["layers_per_block"],
        latent_scale=tree.get("scaling_factor", 0.18215),
    )


def _preconditioning(folder: Path, *, is_video: bool) -> Preconditioning:
    if is_video:
        return "edm-v"
    tree = _read_json(folder / "scheduler" / "scheduler_config.json")
    prediction = tree.get("prediction_type", "epsilon")  # diffusers' default
    if prediction not in _PREDICTIONS:
        raise CheckpointError(f"{folder}: the scheduler's prediction_type is {prediction}")
    return _PREDICTIONS[prediction]


def _described(folder: Path, build: Callable[[], T]) -> T:
    try:
        return build()
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError) as err:
        raise CheckpointError(f"{folder}/config.json: not what the weights need: {err!r}") from err


def _names(build: Callable[[], nn.Module]) -> list[str]:
    with torch.device("meta"):
        return list(build().state_dict())


def _renamed(tensors: Tensors, to_ours: dict[str, str]) -> dict[str, LazyTensor]:
    """Rename what is known; the check that follows lists the rest as extra."""
    return {to_ours.get(name, name): tensor for name, tensor in tensors.items()}


def _read_tensors(folder: Path) -> dict[str, LazyTensor]:
    path = _first_file(folder / name for name in _WEIGHT_FILES)
    if path is None:
        raise MissingInputError(f"{folder} holds none of {', '.join(_WEIGHT_FILES)}")
    return read_safetensors(path)[0]


def _first_file(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingInputError(f"no {path}: a folder of diffusers has one")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise CheckpointError(f"{path}: not JSON: {err}") from err
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return tree
