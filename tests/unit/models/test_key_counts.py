"""The full networks have as many tensors as the release's, and each has a place in diffusers."""

import torch
from torch import nn

from svd.config.model import svd_autoencoder_config, svd_unet_config
from svd.models.checkpoints.key_maps import (
    autoencoder_to_diffusers,
    inverse,
    temporal_decoder_to_diffusers,
    unet_to_diffusers,
)
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.unet import SpatioTemporalUNet


def names(module: nn.Module) -> list[str]:
    return list(module.state_dict())


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_unet() -> None:
    with torch.device("meta"):
        unet = SpatioTemporalUNet(svd_unet_config())
    assert len(inverse(names(unet), unet_to_diffusers)) == 1428


def test_video_autoencoder() -> None:
    """Encoder with quant_conv, and the temporal decoder: what diffusers holds in one VAE."""
    with torch.device("meta"):
        autoencoder = Autoencoder(svd_autoencoder_config())
        decoder = TemporalDecoder(svd_autoencoder_config())
    encoder = [n for n in names(autoencoder) if n.startswith(("encoder.", "quant_conv."))]
    assert len(encoder) == 108
    assert len(names(decoder)) == 266
    theirs = {autoencoder_to_diffusers(name) for name in encoder}
    theirs |= {temporal_decoder_to_diffusers(name) for name in names(decoder)}
    assert len(theirs) == 374
    assert count(decoder) == 63_579_183
    assert count(autoencoder.encoder) + count(autoencoder.quant_conv) == 34_163_664


def test_image_autoencoder() -> None:
    with torch.device("meta"):
        autoencoder = Autoencoder(svd_autoencoder_config())
    assert count(autoencoder.decoder) == 49_490_179
    assert len(inverse(names(autoencoder), autoencoder_to_diffusers)) == 248
