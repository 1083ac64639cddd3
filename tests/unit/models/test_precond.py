"""Laws of the preconditionings, and one number from outside for each."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svd.models.networks.precond import (
    edm_scalings,
    edm_v_scalings,
    nearest_sd_index,
    sd_eps_scalings,
    sd_sigmas,
    sd_v_scalings,
)

SIGMAS = st.floats(1e-3, 700.0)


def tensor(sigma: float) -> torch.Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


@pytest.mark.parametrize("scalings", [edm_v_scalings, sd_v_scalings, sd_eps_scalings])
@given(sigma=SIGMAS)
def test_the_network_sees_unit_variance(scalings, sigma: float) -> None:
    c_in = scalings(tensor(sigma)).c_in
    assert float(c_in**2 * (1 + sigma**2)) == pytest.approx(1.0, rel=1e-12)


@given(sigma=SIGMAS)
def test_the_v_predictors_error_has_weight_one(sigma: float) -> None:
    weight = (1 + sigma**2) / sigma**2
    assert float(weight * edm_v_scalings(tensor(sigma)).c_out ** 2) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("scalings", [edm_v_scalings, sd_v_scalings])
@given(sigma=SIGMAS)
def test_v_gives_back_the_clean_latents(scalings, sigma: float) -> None:
    clean, noise = tensor(0.7), tensor(-1.3)
    c_skip, c_out, _, _ = scalings(tensor(sigma))
    velocity = (noise - sigma * clean) / (1 + sigma**2) ** 0.5
    denoised = c_skip * (clean + sigma * noise) + c_out * velocity
    assert float(denoised) == pytest.approx(0.7, rel=1e-6)


@given(sigma=SIGMAS, sigma_data=st.floats(0.1, 2.0))
def test_karras_target_has_unit_variance_where_data_has_sigma_data(
    sigma: float, sigma_data: float
) -> None:
    """Karras 2022, eq. 114 and 131: inputs and effective targets have unit variance."""
    c_skip, c_out, c_in, _ = edm_scalings(tensor(sigma), sigma_data=sigma_data)
    assert float(c_in**2 * (sigma**2 + sigma_data**2)) == pytest.approx(1.0, rel=1e-12)
    target = ((1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * sigma**2) / c_out**2
    assert float(target) == pytest.approx(1.0, rel=1e-6)


def test_c_noise_is_a_quarter_of_the_logarithm() -> None:
    assert float(edm_v_scalings(tensor(700.0)).c_noise) == pytest.approx(1.637770, rel=1e-6)


def test_the_discrete_levels_are_stable_diffusions() -> None:
    sigmas = sd_sigmas(torch.device("cpu"))
    assert float(sigmas[0]) == pytest.approx(0.0291675, rel=1e-4)
    assert float(sigmas[-1]) == pytest.approx(14.614642, rel=1e-5)
    assert torch.equal(nearest_sd_index(sigmas[::37]), torch.arange(0.0, 1000.0, 37.0))
