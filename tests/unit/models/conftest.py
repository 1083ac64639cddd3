"""Small models with every weight drawn at random, zero-initialised layers and mixes included."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from svd.config.model import AutoencoderConfig, UNetConfig
from svd.models.networks.conditioner import embed_added_time_ids
from svd.models.networks.unet import SpatioTemporalUNet
from svd.types.batch import Conditioning

IDS = ((6.0, 127.0, 0.02), (11.0, 3.0, 0.3))  # fps_id, motion_bucket_id, cond_aug of two clips


def draw_weights(module: nn.Module, seed: int = 0) -> None:
    """Draw every parameter so that activations keep their scale and nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                noise = noise / parameter[0].numel() ** 0.5
            elif "norm" in name or name.endswith(("layers.0.weight", "out.0.weight")):
                noise = 1.0 * name.endswith("weight") + 0.3 * noise
            parameter.copy_(noise)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def unet_config() -> UNetConfig:
    """Three levels, so that both upsampler slots occur.

    diffusers fixes 32 norm groups; two channels in each keep biases from vanishing in the norms.
    """
    return UNetConfig(
        in_channels=8,
        model_channels=64,
        channel_mult=(1, 2, 2),
        attention_factors=(1, 2),
        head_dim=32,
        context_dim=24,
        added_cond_dim=48,
        added_id_dim=16,
    )


@pytest.fixture(scope="session")
def autoencoder_config() -> AutoencoderConfig:
    return AutoencoderConfig(base_channels=32, channel_mult=(1, 2, 2))


@pytest.fixture
def drawn() -> Callable[..., nn.Module]:
    """Return a function that draws a module's weights, in a dtype, and returns the module."""

    def draw(module: nn.Module, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
        module = module.to(dtype)
        draw_weights(module, seed)
        return module

    return draw


@pytest.fixture
def unet(unet_config: UNetConfig, drawn: Callable[..., nn.Module]) -> SpatioTemporalUNet:
    """A small UNet in fp64."""
    return drawn(SpatioTemporalUNet(unet_config))


@pytest.fixture
def unet_inputs(unet_config: UNetConfig) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function that draws latents, c_noise, context and vector of two clips."""

    def inputs(
        *, num_tokens: int = 1, num_frames: int = 5, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(7)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        latents = draw(2, num_frames, unet_config.in_channels, 8, 12)
        context = draw(2, num_tokens, unet_config.context_dim)
        vector = embed_added_time_ids(torch.tensor(IDS), width=unet_config.added_id_dim)
        return latents, torch.tensor([0.3, -1.1], dtype=dtype), context, vector.to(dtype)

    return inputs


@pytest.fixture
def conditioning(unet_inputs: Callable[..., tuple[Tensor, ...]]) -> Conditioning:
    """What two image-to-video clips of five frames are conditioned on, in fp64."""
    latents, _, context, vector = unet_inputs()
    return Conditioning(context=context, vector=vector, cond_latents=latents[:, :, 4:])
