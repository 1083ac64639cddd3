"""Scales per frame, and what guidance makes of two estimates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from svd.config.sampling import GuidanceConfig
from svd.sampling.samplers.guidance import build_guided, guidance_scales, guide
from svd.types.batch import Conditioning


def scales(kind: str, num_frames: int, **options) -> list[float]:
    config = GuidanceConfig(kind=kind, min_scale=1.0, max_scale=2.5, **options)
    return guidance_scales(config, num_frames).tolist()


def test_linear_scales_rise_from_the_first_to_the_last_frame() -> None:
    assert scales("linear", 4) == pytest.approx([1.0, 1.5, 2.0, 2.5])


def test_triangular_scales_peak_in_the_middle() -> None:
    assert scales("triangular", 5) == pytest.approx([1.0, 1.75, 2.5, 1.75, 1.0])


def test_the_trapezoids_plateau_is_the_largest_scale() -> None:
    got = scales("trapezoidal", 12, edge=0.25)
    assert got == pytest.approx([1.0, 1.75, 2.5, *[2.5] * 6, 2.5, 1.75, 1.0])


def test_constant_scales_are_the_largest() -> None:
    assert scales("constant", 3) == [2.5, 2.5, 2.5]


@given(
    kind=st.sampled_from(["constant", "linear", "triangular", "trapezoidal"]),
    num_frames=st.integers(1, 60),
    edge=st.floats(0.01, 0.5),
)
@settings(deadline=None)
def test_scales_are_one_per_frame_and_within_their_bounds(kind, num_frames, edge) -> None:
    got = scales(kind, num_frames, edge=edge)
    assert len(got) == num_frames
    assert all(1 - 1e-6 <= scale <= 2.5 + 1e-6 for scale in got)
    if kind in {"triangular", "trapezoidal"}:
        assert got == pytest.approx(got[::-1], abs=1e-5)


def test_scale_one_is_the_conditional_prediction() -> None:
    torch.manual_seed(0)
    uncond, cond = torch.randn(2, 2, 3, 4, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(guide(uncond, cond, torch.ones(3)), cond)
    assert torch.equal(guide(uncond, cond, torch.zeros(3)), uncond)


class LinearDenoiser:
    """Depends on everything it is given, row by row."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, noisy_latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        self.batches.append(len(noisy_latents))
        bias = conditioning.context.mean((1, 2)) + conditioning.vector.mean(1) + sigma
        assert conditioning.cond_latents is not None
        return noisy_latents * 0.5 + conditioning.cond_latents + bias[:, None, None, None, None]


def conditions() -> tuple[Conditioning, Conditioning]:
    generator = torch.Generator().manual_seed(2)
    cond = Conditioning(
        context=torch.randn(2, 1, 8, generator=generator),
        vector=torch.randn(2, 6, generator=generator),
        cond_latents=torch.randn(2, 3, 4, 5, 6, generator=generator),
    )
    return cond, cond.unconditional()


def test_one_batch_and_two_passes_agree() -> None:
    cond, uncond = conditions()
    x = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(3))
    sigma = torch.tensor([3.0, 3.0])
    weights = torch.tensor([1.0, 2.0, 3.0])
    one, two = LinearDenoiser(), LinearDenoiser()
    together = build_guided(one, cond, uncond, scales=weights, passes="one-batch")(x, sigma)
    apart = build_guided(two, cond, uncond, scales=weights, passes="two-passes")(x, sigma)
    torch.testing.assert_close(together, apart)
    assert one.batches == [4]
    assert two.batches == [2, 2]


def test_without_guidance_the_unconditional_half_is_not_computed() -> None:
    cond, uncond = conditions()
    denoiser = LinearDenoiser()
    x, sigma = torch.ones(2, 3, 4, 5, 6), torch.ones(2)
    got = build_guided(denoiser, cond, uncond, scales=torch.ones(3), passes="one-batch")(x, sigma)
    assert denoiser.batches == [2]
    assert torch.equal(got, denoiser(x, sigma, cond))


def test_the_null_condition_keeps_the_added_ids() -> None:
    cond, uncond = conditions()
    assert torch.equal(uncond.vector, cond.vector)
    assert not uncond.context.any()
    assert uncond.cond_latents is not None
    assert not uncond.cond_latents.any()
