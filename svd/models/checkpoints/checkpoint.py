"""A whole model as named tensors in our layout, whatever layout it was read from.

Our names are the release's module names without their prefixes, so one canonical form stands
between all layouts: each layout has a reader to it and a writer from it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from svd.config.model import (
    AutoencoderConfig,
    DenoiserConfig,
    ImageEncoderConfig,
    TextEncoderConfig,
)
from svd.models.checkpoints.tensor_file import LazyTensor
from svd.models.checkpoints.weights import check_fit
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.text_encoder import TextEncoder
from svd.models.networks.unet import SpatioTemporalUNet, is_temporal

C = TypeVar("C")
Tensors = Mapping[str, LazyTensor]
MayLack = tuple[Callable[[str], bool], ...]


@dataclass(frozen=True, slots=True)
class Part(Generic[C]):
    """One network: what rebuilds it, and its tensors by our names."""

    config: C
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every network that a layout holds of one model.

    Attributes:
        unet: Names of SpatioTemporalUNet, or of its image part alone (Stable Diffusion 2.1).
        autoencoder: Names of Autoencoder, or of its encoder side alone where the layout has no
            image decoder.
        temporal_decoder: Names of TemporalDecoder.
        image_encoder: OpenCLIP's names of the vision tower.
        text_encoder: OpenCLIP's names of the text tower; its last block and projection, which
            the penultimate layer does not need, may be there or not.
    """

    unet: Part[DenoiserConfig] | None = None
    autoencoder: Part[AutoencoderConfig] | None = None
    temporal_decoder: Part[AutoencoderConfig] | None = None
    image_encoder: Part[ImageEncoderConfig] | None = None
    text_encoder: Part[TextEncoderConfig] | None = None

    def check(self, origin: str) -> None:
        """Compare every part with the network that it fills.

        Raises:
            CheckpointError: Tensors are missing, extra or mis-shaped; they are listed.
        """
        for build, tensors, may_lack in self._fits():
            _check_part(build, tensors, may_lack, origin)

    def _fits(self) -> Iterator[tuple[Callable[[], nn.Module], Tensors, MayLack]]:
        """Yield each part's network, its tensors, and the groups that it may lack as a whole."""
        if self.unet is not None:
            unet = self.unet.config.unet
            groups: MayLack = (is_temporal, lambda name: name.startswith("label_emb."))
            yield lambda: SpatioTemporalUNet(unet), self.unet.tensors, groups
        if self.autoencoder is not None:
            config = self.autoencoder.config
            yield lambda: Autoencoder(config), self.autoencoder.tensors, (is_image_decoder,)
        if self.temporal_decoder is not None:
            config = self.temporal_decoder.config
            yield lambda: TemporalDecoder(config), self.temporal_decoder.tensors, ()
        if self.image_encoder is not None:
            image = self.image_encoder.config.model_copy(update={"weights": None})
            yield lambda: ImageEncoder(image).visual, self.image_encoder.tensors, ()
        if self.text_encoder is not None:
            text = self.text_encoder.config.model_copy(update={"weights": None})
            yield lambda: TextEncoder(text).text, _penultimate(self.text_encoder.tensors), ()


def is_image_decoder(name: str) -> bool:
    """Tell whether a tensor of Autoencoder belongs to its decoder side."""
    return name.startswith(("decoder.", "post_quant_conv."))


def _penultimate(tensors: Tensors) -> Tensors:
    """Leave out what comes after the penultimate block of a text tower."""
    blocks = {int(n.split(".")[2]) for n in tensors if n.startswith("transformer.resblocks.")}
    last = f"transformer.resblocks.{max(blocks, default=0)}."
    end = ("text_projection", "logit_scale", "attn_mask")
    after = (*end, last) if any(name.startswith(end) for name in tensors) else end
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(after)}


def _check_part(
    build: Callable[[], nn.Module], tensors: Tensors, may_lack: MayLack, origin: str
) -> None:
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in build().state_dict().items()}
    for in_group in may_lack:
        if not any(in_group(name) for name in tensors):
            expected = {name: shape for name, shape in expected.items() if not in_group(name)}
    found = {name: torch.Size(tensor.shape) for name, tensor in tensors.items()}
    check_fit(expected, found, origin)
