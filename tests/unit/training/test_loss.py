"""The F-space loss is the paper's weighted loss on the denoised latents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from svd.models.networks.precond import edm_v_scalings
from svd.training.objective.loss import denoising_loss, velocity_target
from svd.types.batch import Conditioning

SHAPE = (2, 3, 4, 2, 2)
CONDITIONING = Conditioning(context=torch.zeros(2, 1, 1), vector=torch.zeros(2, 1))


def draws() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise, output = torch.randn((3, *SHAPE), generator=generator, dtype=torch.float64)
    return latents, noise, output


@settings(max_examples=30)
@given(st.floats(0.002, 700), st.floats(0.002, 700))
def test_it_is_the_lambda_weighted_error_of_the_denoised_latents(
    first: float, other: float
) -> None:
    latents, noise, output = draws()
    sigma = torch.tensor([first, other], dtype=torch.float64)
    parts = denoising_loss(
        lambda *_: output, latents=latents, noise=noise, sigma=sigma, conditioning=CONDITIONING
    )
    level = sigma[:, None, None, None, None]
    scalings = edm_v_scalings(level)
    denoised = scalings.c_skip * (latents + level * noise) + scalings.c_out * output
    weight = (1 + sigma**2) / sigma**2  # SVD paper, appendix D.1
    expected = weight * (denoised - latents).square().mean(dim=(1, 2, 3, 4))
    assert parts.per_example.double().numpy() == pytest.approx(expected.numpy(), rel=1e-5)
    assert parts.loss.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_the_target_is_noise_where_there_is_none_and_minus_the_data_where_all_is_noise() -> None:
    latents, noise, _ = draws()
    small, large = torch.full((2, 1, 1, 1, 1), 1e-9), torch.full((2, 1, 1, 1, 1), 1e9)
    assert torch.allclose(velocity_target(latents, noise, small), noise)
    assert torch.allclose(velocity_target(latents, noise, large), -latents)


def test_the_network_sees_noised_latents_and_one_level_per_clip() -> None:
    latents, noise, output = draws()
    seen: list[Tensor] = []

    def network(noisy_latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        seen.extend([noisy_latents, sigma])
        return output

    sigma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    denoising_loss(network, latents=latents, noise=noise, sigma=sigma, conditioning=CONDITIONING)
    assert torch.allclose(seen[0][0], latents[0] + 0.5 * noise[0])
    assert torch.allclose(seen[0][1], latents[1] + 2.0 * noise[1])
    assert seen[1].shape == (2,)
