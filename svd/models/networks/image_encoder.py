"""A frame as one context token: OpenCLIP's vision tower behind the release's preprocessing."""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from svd.config.model import ImageEncoderConfig
from svd.models.networks.tower import (
    architecture_config,
    freeze,
    initial_values,
    load_tower,
    pixel_statistics,
)

_PREFIXES = (
    "conditioner.embedders.0.open_clip.model.visual.",  # the released svd*.safetensors
    "visual.",  # open_clip, and our own files
)


def _gaussian(num_taps: int, sigma: float) -> Float[Tensor, " k"]:
    offsets = torch.arange(num_taps, dtype=torch.float32) - num_taps // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()


def _blur(
    pixels: Float[Tensor, "b c H W"], *, factor: float, axis: int
) -> Float[Tensor, "b c H W"]:
    """Blur one axis before it shrinks by a factor; nothing to do where it grows.

    Source: kornia's `resize(antialias=True)`, which the release calls: sigma is (factor-1)/2 and
    the kernel spans four of them, at least 3 taps, made odd.
    """
    if factor <= 1:
        return pixels
    sigma = max((factor - 1) / 2, 0.001)
    num_taps = int(max(4 * sigma, 3)) | 1
    kernel = _gaussian(num_taps, sigma).to(pixels)
    last = pixels if axis == -1 else pixels.transpose(-1, -2)
    rows = rearrange(last, "b c h w -> (b c h) 1 w")
    padded = functional.pad(rows, (num_taps // 2, num_taps // 2), mode="reflect")
    blurred = functional.conv1d(padded, kernel[None, None]).reshape(last.shape)
    return blurred if axis == -1 else blurred.transpose(-1, -2)


def resize_antialiased(
    pixels: Float[Tensor, "b c H W"], *, size: int
) -> Float[Tensor, "b c size size"]:
    """Squash pictures to a square as the release does: blur, then bicubic on aligned corners."""
    height, width = pixels.shape[-2:]
    pixels = _blur(pixels, factor=width / size, axis=-1)
    pixels = _blur(pixels, factor=height / size, axis=-2)
    return functional.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=True)


class ImageEncoder(nn.Module):
    """Frozen vision tower; its names are `visual.*` with OpenCLIP's names behind the dot."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        from open_clip.transformer import VisionTransformer

        super().__init__()
        sizes = _sizes(config)
        with initial_values(config.weights, config.seed):
            self.visual = VisionTransformer(image_size=config.image_size, **sizes)
        if config.weights is not None:
            self.visual.to_empty(device="cpu")
            load_tower(self.visual, Path(config.weights), prefixes=_PREFIXES)
        self.image_size = config.image_size  # pixels per side that the tower sees
        self.token_dim: int = sizes["output_dim"]  # size of the context token
        freeze(self)

    def preprocess(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 s s"]:
        """Return what the tower sees: resized in [-1, 1], then CLIP's mean and deviation.

        The picture is squashed, not cropped, and not clamped after the bicubic filter.
        """
        small = resize_antialiased(pixels.float(), size=self.image_size)
        mean, std = (small.new_tensor(values)[:, None, None] for values in pixel_statistics())
        return ((small + 1) / 2 - mean) / std

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 d"]:
        """Return the projected class token of each picture, not normalised.

        Args:
            pixels: Clean frames in [-1, 1], without the noise of cond_aug.
        """
        weight = self.visual.conv1.weight
        features: Tensor = self.visual(self.preprocess(pixels.to(weight.device)).to(weight.dtype))
        return features[:, None]


def _sizes(config: ImageEncoderConfig) -> dict[str, Any]:
    if config.kind == "tiny":
        return {
            "patch_size": config.patch_size,
            "width": config.width,
            "layers": config.layers,
            "heads": config.heads,
            "mlp_ratio": 4.0,
            "output_dim": config.width,
        }
    from open_clip.transformer import QuickGELU

    clip = architecture_config(config.architecture)
    vision = clip["vision_cfg"]
    return {
        "patch_size": vision["patch_size"],
        "width": vision["width"],
        "layers": vision["layers"],
        "heads": vision["width"] // vision.get("head_width", 64),
        "mlp_ratio": vision.get("mlp_ratio", 4.0),
        "output_dim": clip["embed_dim"],
        "act_layer": QuickGELU if clip.get("quick_gelu", False) else nn.GELU,
    }
