"""The denoiser around the UNet: its formula, and conditioning that does not fit."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from svd.config.model import DenoiserConfig, UNetConfig
from svd.errors import ConfigError
from svd.models.networks.denoiser import Denoiser
from svd.types.batch import Conditioning


@pytest.fixture
def denoiser(unet_config: UNetConfig, drawn: Callable[..., nn.Module]) -> Denoiser:
    return drawn(Denoiser(DenoiserConfig(unet=unet_config)))


def test_denoised_is_the_preconditioned_output(
    denoiser: Denoiser, conditioning: Conditioning
) -> None:
    noisy = torch.randn(2, 5, 4, 8, 12, dtype=torch.float64)
    sigma = torch.tensor([0.5, 20.0], dtype=torch.float64)
    with torch.no_grad():
        output = denoiser.network_output(noisy, sigma, conditioning)
        denoised = denoiser(noisy, sigma, conditioning)
    level = sigma[:, None, None, None, None]
    expected = noisy / (1 + level**2) - level / (1 + level**2).sqrt() * output
    torch.testing.assert_close(denoised, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 4, 4, 8, 12), "do not fit latents"),
        ((2, 5, 4, 8, 8), "do not fit latents"),
        ((2, 5, 3, 8, 12), "in_channels=8 but was given 7"),
        (None, "in_channels=8 but was given 4"),
    ],
    ids=["frames", "width", "channels", "none"],
)
def test_wrong_cond_latents_are_one_clear_error(
    denoiser: Denoiser, conditioning: Conditioning, shape: tuple[int, ...] | None, words: str
) -> None:
    cond_latents = None if shape is None else torch.zeros(shape, dtype=torch.float64)
    noisy = torch.randn(2, 5, 4, 8, 12, dtype=torch.float64)
    with pytest.raises(ConfigError, match=words):
        denoiser(noisy, torch.ones(2).double(), replace(conditioning, cond_latents=cond_latents))
