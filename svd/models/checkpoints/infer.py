"""Architectures from the shapes of tensors, for layouts that do not state them.

What shapes cannot tell (channels per head, norm groups) is the release's.
"""

from svd.config.model import (
    AutoencoderConfig,
    ImageEncoderConfig,
    TextEncoderConfig,
    UNetConfig,
)
from svd.errors import CheckpointError
from svd.models.checkpoints.checkpoint import Tensors
from svd.models.networks.tower import architecture_config

_HEAD_DIM = 64  # channels per head in every UNet of the release
_ADDED_COND_DIM = 768  # of the video model that an image model without added ids becomes
_CLIP = "ViT-H-14"  # the towers of SVD and of Stable Diffusion 2.1


def infer_unet_config(tensors: Tensors) -> UNetConfig:
    """Return the UNet whose tensors these are.

    Raises:
        CheckpointError: They are no UNet's.
    """
    in_channels, model_channels = (_shape(tensors, "input_blocks.0.0.weight")[i] for i in (1, 0))
    widths: list[int] = []
    factors: list[int] = []
    num_res_blocks, index = 0, 1
    while f"input_blocks.{index}.0.out_layers.3.weight" in tensors:
        factor = 2 ** len(widths)
        width = _shape(tensors, f"input_blocks.{index}.0.out_layers.3.weight")[0]
        if f"input_blocks.{index}.1.proj_in.weight" in tensors:
            factors.append(factor)
        num_res_blocks = 0
        while f"input_blocks.{index}.0.out_layers.3.weight" in tensors:
            index, num_res_blocks = index + 1, num_res_blocks + 1
        widths.append(width)
        index += 1  # the downsampler
    context = _shape(tensors, "middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1]
    ids = tensors.get("label_emb.0.0.weight")
    return UNetConfig(
        in_channels=in_channels,
        out_channels=_shape(tensors, "out.2.weight")[0],
        model_channels=model_channels,
        channel_mult=tuple(width // model_channels for width in widths),
        num_res_blocks=num_res_blocks,
        attention_factors=tuple(factors),
        head_dim=_HEAD_DIM,
        context_dim=context,
        added_cond_dim=ids.shape[1] if ids is not None else _ADDED_COND_DIM,
    )


def infer_autoencoder_config(tensors: Tensors) -> AutoencoderConfig:
    """Return the autoencoder whose encoder's tensors are among these.

    Raises:
        CheckpointError: They are no autoencoder's.
    """
    base_channels, pixel_channels = _shape(tensors, "encoder.conv_in.weight")[:2]
    widths: list[int] = []
    while f"encoder.down.{len(widths)}.block.0.conv2.weight" in tensors:
        widths.append(_shape(tensors, f"encoder.down.{len(widths)}.block.0.conv2.weight")[0])
    num_res_blocks = 0
    while f"encoder.down.0.block.{num_res_blocks}.conv2.weight" in tensors:
        num_res_blocks += 1
    return AutoencoderConfig(
        pixel_channels=pixel_channels,
        latent_channels=_shape(tensors, "encoder.conv_out.weight")[0] // 2,
        base_channels=base_channels,
        channel_mult=tuple(width // base_channels for width in widths),
        num_res_blocks=num_res_blocks,
    )


def infer_image_encoder_config(tensors: Tensors) -> ImageEncoderConfig:
    """Return the vision tower's architecture, which must be the release's.

    Raises:
        CheckpointError: The tensors are of another tower.
    """
    width, _, patch_size, _ = _shape(tensors, "conv1.weight")
    vision = architecture_config(_CLIP)["vision_cfg"]
    if (width, patch_size) != (vision["width"], vision["patch_size"]):
        raise CheckpointError(
            f"the vision tower has width {width} and patches of {patch_size} pixels; {_CLIP} has "
            f"{vision['width']} and {vision['patch_size']}"
        )
    return ImageEncoderConfig(kind="open-clip", architecture=_CLIP)


def infer_text_encoder_config(tensors: Tensors) -> TextEncoderConfig:
    """Return the text tower's architecture, which must be Stable Diffusion 2.1's.

    Raises:
        CheckpointError: The tensors are of another tower.
    """
    width = _shape(tensors, "token_embedding.weight")[1]
    expected = architecture_config(_CLIP)["text_cfg"]["width"]
    if width != expected:
        raise CheckpointError(f"the text tower has width {width}; {_CLIP} has {expected}")
    return TextEncoderConfig(kind="open-clip", architecture=_CLIP)


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"the weights have no {name}")
    return tensors[name].shape
