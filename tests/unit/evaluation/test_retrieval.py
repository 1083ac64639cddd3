import pytest
import torch

from svd.evaluation.metrics.retrieval import pixel_distances, retrieve


def pictures(num: int, *, size: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, 3, size, size + 8), dtype=torch.uint8, generator=generator)


def test_each_picture_is_nearest_to_itself() -> None:
    some = pictures(6)
    distances = pixel_distances(some, some, short_side=16)
    assert torch.all(distances.diagonal() == 0)
    found = retrieve(distances)
    assert found.hits.all()
    assert found.ranks.tolist() == [1] * 6


def test_shifted_candidates_are_all_missed() -> None:
    some = pictures(6)
    found = retrieve(pixel_distances(some, some.roll(1, dims=0), short_side=16))
    assert not found.hits.any()


def test_a_tie_is_a_miss() -> None:
    some = pictures(3)
    some[1] = some[0]
    found = retrieve(pixel_distances(some, some, short_side=16))
    assert found.hits.tolist() == [False, False, True]
    assert found.ranks.tolist() == [2, 2, 1]


def test_distance_is_the_mean_squared_difference_where_nothing_is_shrunk() -> None:
    black = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    grey = torch.full_like(black, 51)
    assert float(pixel_distances(black, grey, short_side=8)) == pytest.approx(0.04)


def test_noise_hides_less_after_shrinking() -> None:
    truth = torch.nn.functional.interpolate(pictures(16, size=4).float(), scale_factor=16)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(truth.shape, generator=generator) * 200
    noisy = (truth + noise).clamp(0, 255).to(torch.uint8)
    clean = truth.to(torch.uint8)
    full = pixel_distances(noisy, clean, short_side=1000)
    small = pixel_distances(noisy, clean, short_side=4)
    margin = [
        d.fill_diagonal_(torch.inf).min(dim=1).values / own
        for d, own in ((full, full.diagonal().clone()), (small, small.diagonal().clone()))
    ]
    assert margin[1].mean() > margin[0].mean()
