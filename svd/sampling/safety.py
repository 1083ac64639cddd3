"""A hook that looks at every finished video, and the release's filter as one such hook.

The release scores each frame with two linear heads on a CLIP image embedding (unsafe content,
visible watermark) and blurs the frames where a head says more than one half. Its heads are
`p_head_v1.npz` and `w_head_v1.npz` of Stability-AI/generative-models; its tower is OpenAI's
CLIP ViT-L/14.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from svd.config.model import ImageEncoderConfig
from svd.errors import CheckpointError, MissingInputError
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.tower import pixel_statistics

logger = logging.getLogger(__name__)

_THRESHOLD = 0.5  # of a head's probability; the release's
_BLUR_TAPS, _BLUR_SIGMA = 99, 100.0  # pixels; the release's


@runtime_checkable
class SafetyFilter(Protocol):
    """Sees the frames of one video before they are marked and written, and may change them."""

    def __call__(self, frames: UInt8[Tensor, "t H W 3"]) -> UInt8[Tensor, "t H W 3"]:
        """Return the frames that may be shown."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Logistic regression on a CLIP embedding.

    Attributes:
        name: What it finds.
        weights: One per component of the embedding.
        bias: Added to the product.
    """

    name: str
    weights: Float[Tensor, " d"]
    bias: float

    @classmethod
    def load(cls, path: Path, *, name: str) -> "LinearHead":
        """Read `weights` and `biases` of an .npz file; nothing in it is unpickled.

        Raises:
            MissingInputError: No such file.
            CheckpointError: Not such a file.
        """
        if not path.is_file():
            raise MissingInputError(f"{path}: no such file; give the folder of the safety heads")
        try:
            with np.load(path, allow_pickle=False) as file:
                weights = np.asarray(file["weights"], dtype=np.float32).reshape(-1)
                bias = float(file["biases"])
        except (KeyError, ValueError, TypeError, OSError, BadZipFile) as err:
            raise CheckpointError(f"{path}: not an .npz of weights and biases: {err}") from err
        return cls(name, torch.from_numpy(weights), bias)

    def probability(self, embeds: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return the probability that each picture has what the head finds."""
        return torch.sigmoid(embeds @ self.weights + self.bias)


class BlurFilter:
    """Blurs the frames on which a linear head fires."""

    def __init__(self, tower: ImageEncoder, heads: tuple[LinearHead, ...]) -> None:
        for head in heads:
            if len(head.weights) != tower.token_dim:
                raise CheckpointError(
                    f"safety head {head.name} takes embeddings of {len(head.weights)}, the tower "
                    f"gives {tower.token_dim}"
                )
        self._tower = tower
        self._heads = heads

    @torch.no_grad()
    def embed(self, frames: UInt8[Tensor, "t H W 3"]) -> Float[Tensor, "t d"]:
        """Return the CLIP embedding of each frame's centre square, not normalised."""
        from torchvision.transforms.v2 import functional as transforms

        pixels = rearrange(frames, "t H W c -> t c H W").float() / 255
        side = min(pixels.shape[-2:])
        square = transforms.resize(
            transforms.center_crop(pixels, [side, side]),
            [self._tower.image_size] * 2,
            interpolation=transforms.InterpolationMode.BICUBIC,
            antialias=True,
        )
        normal = transforms.normalize(square, *(list(values) for values in pixel_statistics()))
        embeds: Tensor = self._tower.visual(normal.to(self._tower.visual.conv1.weight))
        return embeds.float().cpu()

    def flag(self, frames: UInt8[Tensor, "t H W 3"]) -> Bool[Tensor, " t"]:
        """Return which frames a head fires on."""
        embeds = self.embed(frames)
        hits = torch.stack([head.probability(embeds) > _THRESHOLD for head in self._heads])
        for head, hit in zip(self._heads, hits, strict=True):
            if hit.any():
                logger.warning(
                    "safety filter blurred frames",
                    extra={"head": head.name, "num_frames": int(hit.sum())},
                )
        return hits.any(dim=0)

    def __call__(self, frames: UInt8[Tensor, "t H W 3"]) -> UInt8[Tensor, "t H W 3"]:
        """Return the frames with the flagged ones blurred."""
        shown = frames.clone()
        for index in self.flag(frames).nonzero().flatten().tolist():
            shown[index] = torch.from_numpy(_blurred(frames[index].numpy()))
        return shown


def release_filter(clip: Path, heads: Path) -> BlurFilter:
    """Return the release's filter.

    Args:
        clip: OpenAI's CLIP ViT-L/14 in safetensors, OpenCLIP's names.
        heads: Folder with p_head_v1.npz and w_head_v1.npz.

    Raises:
        MissingInputError: A file is not there.
        CheckpointError: A file does not fit.
    """
    found = (
        LinearHead.load(heads / "p_head_v1.npz", name="unsafe content"),
        LinearHead.load(heads / "w_head_v1.npz", name="visible watermark"),
    )
    config = ImageEncoderConfig(
        kind="open-clip", architecture="ViT-L-14-quickgelu", weights=str(clip)
    )
    return BlurFilter(ImageEncoder(config), found)


def _blurred(frame: UInt8[ndarray, "H W 3"]) -> UInt8[ndarray, "H W 3"]:
    blurred: UInt8[ndarray, "H W 3"] = cv2.GaussianBlur(
        frame, (_BLUR_TAPS, _BLUR_TAPS), _BLUR_SIGMA
    ).astype(np.uint8)
    return blurred
