import math

import pytest
import torch
from patterns import pattern

from svd.errors import ConfigError
from svd.evaluation.metrics.image import (
    PSNR_CAP_DB,
    psnr_per_clip,
    psnr_per_frame,
    ssim_per_frame,
)

A, B = pattern(2, 64, 80), pattern(2, 64, 80, phase=5)


def test_psnr_equals_torchmetrics() -> None:
    assert psnr_per_frame(A, B).tolist() == pytest.approx([15.5213, 14.3517], abs=1e-4)


def test_ssim_is_near_torchmetrics_which_pads_the_border() -> None:
    # torchmetrics 1.9: 0.7979, 0.8053; it reflects at the border where we take the valid region.
    assert ssim_per_frame(A, B).tolist() == pytest.approx([0.7979, 0.8053], abs=5e-3)


def test_ssim_of_one_window_is_the_formula() -> None:
    a, b = A[:1, :1, :11, :11], B[:1, :1, :11, :11]
    offsets = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offsets**2) / 4.5)
    weight = torch.outer(line, line) / line.sum() ** 2
    x, y = a[0, 0].double(), b[0, 0].double()
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    var_x = (weight * (x - mean_x) ** 2).sum()
    var_y = (weight * (y - mean_y) ** 2).sum()
    cov = (weight * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    assert float(ssim_per_frame(a, b)[0]) == pytest.approx(float(expected), abs=1e-12)


def test_equal_pictures_are_as_like_as_can_be() -> None:
    assert psnr_per_frame(A, A).tolist() == [PSNR_CAP_DB] * 2
    assert float(psnr_per_clip(A, A)) == PSNR_CAP_DB
    assert ssim_per_frame(A, A).tolist() == pytest.approx([1.0, 1.0])


def test_one_grey_level_is_48_db() -> None:
    black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert float(psnr_per_frame(black, black + 1)[0]) == pytest.approx(20 * math.log10(255))


def test_the_average_over_frames_is_never_below_that_of_the_clip() -> None:
    assert float(psnr_per_frame(A, B).mean()) >= float(psnr_per_clip(A, B))


@pytest.mark.parametrize("metric", [psnr_per_frame, ssim_per_frame], ids=["psnr", "ssim"])
def test_likeness_falls_with_noise(metric: object) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(A.shape, generator=generator)
    noisy = [(A + noise * std).clamp(0, 255).to(torch.uint8) for std in (4, 16, 64)]
    values = [float(metric(A, other).mean()) for other in noisy]
    assert values == sorted(values, reverse=True)


def test_pictures_below_the_window_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 11 pixels"):
        ssim_per_frame(A[..., :10], B[..., :10])
