"""Where latents are not known, the network sees what it learned to see there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from svd.config.model import DenoiserConfig, UNetConfig
from svd.errors import ConfigError
from svd.models.checkpoints.start import start_unet
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.conditioner import mask_between
from svd.models.networks.denoiser import Denoiser
from svd.models.networks.unet import SpatioTemporalUNet, fill_unknown
from svd.types.batch import Conditioning


def interpolator(config: UNetConfig, *, per_channel: bool = False) -> Denoiser:
    shape = (4, 1, 1) if per_channel else (4, 8, 12)
    unet = config.model_copy(update={"in_channels": 9, "mask_embedding": shape})
    return Denoiser(DenoiserConfig(unet=unet)).double()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_the_embedding_stands_where_the_mask_is_zero() -> None:
    noisy, embedding = draw(2, 5, 4, 8, 12), draw(4, 8, 12, seed=1)
    known = mask_between(draw(2, 2, 4, 8, 12, seed=2), num_frames=5)
    filled = fill_unknown(torch.cat([noisy, known], dim=2), embedding)
    assert torch.equal(filled[:, :, :4], noisy)
    assert torch.equal(filled[:, [0, 4], 4:], known[:, [0, 4]])
    assert torch.equal(filled[:, 1:4, 4:8], embedding.expand(2, 3, 4, 8, 12))
    assert torch.equal(filled[:, :, 8], known[:, :, 4])


def test_what_lies_under_the_mask_is_not_seen_and_the_embedding_is_learned(
    unet_config: UNetConfig, drawn: Callable[..., nn.Module]
) -> None:
    model = interpolator(unet_config)
    drawn(model)
    known = mask_between(draw(1, 2, 4, 8, 12), num_frames=5)
    conditioning = Conditioning(
        context=draw(1, 2, unet_config.context_dim, seed=3),
        vector=draw(1, unet_config.added_cond_dim, seed=4),
        cond_latents=known,
    )
    noisy, sigma = draw(1, 5, 4, 8, 12, seed=5), torch.ones(1, dtype=torch.float64)
    out = model(noisy, sigma, conditioning)
    out.square().sum().backward()
    assert model.unet.mask_embedding is not None
    assert model.unet.mask_embedding.grad is not None
    assert (model.unet.mask_embedding.grad != 0).all()
    smuggled = known.clone()
    smuggled[:, 1:4, :4] = 7
    other = Conditioning(conditioning.context, conditioning.vector, smuggled)
    assert torch.equal(model(noisy, sigma, other), out)


def test_a_model_of_another_picture_size_says_so(unet_config: UNetConfig) -> None:
    noisy, sigma = draw(1, 5, 4, 8, 16), torch.ones(1, dtype=torch.float64)
    conditioning = Conditioning(
        context=draw(1, 2, unet_config.context_dim),
        vector=draw(1, unet_config.added_cond_dim),
        cond_latents=mask_between(draw(1, 2, 4, 8, 16), num_frames=5),
    )
    with pytest.raises(ConfigError, match="train with mask_embedding: per-channel"):
        interpolator(unet_config)(noisy, sigma, conditioning)
    interpolator(unet_config, per_channel=True)(noisy, sigma, conditioning)


def test_interpolation_starts_as_the_image_model_it_starts_from(
    unet_config: UNetConfig, drawn: Callable[..., nn.Module], tmp_path: Path
) -> None:
    base = drawn(SpatioTemporalUNet(unet_config))
    path = tmp_path / "weights.safetensors"
    save_weights(base, path)
    model = interpolator(unet_config)
    report = start_unet(model.unet, path)
    assert report.fresh == ("mask_embedding",)
    assert report.widened == ("input_blocks.0.0.weight",)
    inputs = draw(1, 5, 8, 8, 12)
    inputs[:, 1:4, 4:] = 0  # the mask embedding is zero at first
    mask = torch.ones(1, 5, 1, 8, 12, dtype=torch.float64)
    mask[:, 1:4] = 0
    rest = (torch.zeros(1).double(), draw(1, 2, unet_config.context_dim), draw(1, 48))
    with torch.no_grad():
        ours = model.unet(torch.cat([inputs, mask], dim=2), *rest)
        theirs = base(inputs, *rest)
    assert torch.allclose(ours, theirs, atol=1e-12)
