"""Our metrics beside torchmetrics, a second implementation by other people."""

import numpy as np
import pytest
import torch
from patterns import pattern
from torch import Tensor, nn
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from svd.evaluation.metrics.embedding import clip_similarity, inception_score
from svd.evaluation.metrics.frechet import frechet_distance
from svd.evaluation.metrics.image import psnr_per_frame, ssim_per_frame
from svd.evaluation.metrics.kid import kernel_distance

A, B = pattern(3, 64, 80), pattern(3, 64, 80, phase=5)


class Means(nn.Module):
    """Features of a picture: mean and spread of each channel, and of its four quarters."""

    num_features = 15

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures.double()
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        quarters = [x[..., :height, :width], x[..., height:, :width], x[..., :height, width:]]
        parts = [part.mean(dim=(2, 3)) for part in (x, *quarters)]
        return torch.cat([*parts, x.std(dim=(2, 3))], dim=1).float()


def pictures(seed: int) -> Tensor:
    return torch.randint(0, 256, (24, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )


def test_psnr() -> None:
    for ours, a, b in zip(psnr_per_frame(A, B), A, B, strict=True):
        theirs = peak_signal_noise_ratio(a.float(), b.float(), data_range=255.0)
        assert float(ours) == pytest.approx(float(theirs), abs=1e-4)


def test_ssim_but_for_the_border_that_it_reflects() -> None:
    for ours, a, b in zip(ssim_per_frame(A, B), A, B, strict=True):
        theirs = structural_similarity_index_measure(
            a[None].double(), b[None].double(), data_range=255.0
        )
        assert float(ours) == pytest.approx(float(theirs), abs=5e-3)


def test_frechet_distance() -> None:
    network = Means()
    oracle = FrechetInceptionDistance(feature=network, input_img_size=(3, 16, 16))
    oracle.set_dtype(torch.float64)
    oracle.update(pictures(0), real=True)
    oracle.update(pictures(1), real=False)
    ours = frechet_distance(network(pictures(0)), network(pictures(1)))
    assert ours == pytest.approx(float(oracle.compute()), abs=1e-3)


def test_kernel_distance() -> None:
    network = Means()
    a, b = (network(pictures(seed)).double() / 100 for seed in (2, 3))
    assert kernel_distance(a, b) == pytest.approx(float(poly_mmd(a, b)), abs=1e-9)


def test_inception_score_of_sure_and_varied_answers_is_the_number_of_classes() -> None:
    sure = 100 * torch.eye(10).repeat(20, 1)
    assert inception_score(sure, num_splits=10).mean == pytest.approx(10)
    assert inception_score(sure, num_splits=10).std == pytest.approx(0, abs=1e-9)


def test_inception_score_of_unsure_answers_is_one() -> None:
    assert inception_score(torch.zeros(40, 10), num_splits=4).mean == pytest.approx(1)


def test_inception_score_is_the_formula() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 7)))
    p = torch.softmax(logits, dim=1).numpy()
    by_hand = np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())
    assert inception_score(logits, num_splits=1).mean == pytest.approx(by_hand)


def test_clip_similarity_does_not_see_length() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert clip_similarity(a, 7 * a).tolist() == pytest.approx([1, 1])
    assert clip_similarity(a[1:], torch.tensor([[1.0, 1.0]])).tolist() == pytest.approx([0.5**0.5])
