"""Which held-out clips a rank takes, where there are more ranks than clips, or fewer."""

from collections.abc import Sequence
from typing import Any, overload

import pytest
import torch.distributed as dist

from svd.training.loop.samples import Sampler
from svd.training.loop.validation import Validator


class Watched(Sequence[Any]):
    """Batches that note which of them were read."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.read: list[int] = []

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        assert isinstance(index, int)
        self.read.append(index)
        return f"batch {index}"


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda: world_size)


@pytest.mark.parametrize(("count", "world_size"), [(4, 1), (4, 2), (8, 3), (2, 7), (5, 4)])
def test_every_clip_is_read_and_no_rank_reads_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch, count: int, world_size: int
) -> None:
    written: list[int] = []
    everything: set[int] = set()
    for rank in range(world_size):
        as_rank(monkeypatch, rank, world_size)
        batches = Watched(count)
        Validator(batches, objective=None, sigmas=(1.0,), latent_scale=1.0, seed=0)
        assert len(batches.read) == -(-count // world_size)
        everything |= set(batches.read)
        sampled = Watched(count)
        sampler = Sampler(
            sampled, config=None, denoiser=None, autoencoder=None, latent_scale=1.0, seed=0
        )
        assert sampled.read == batches.read
        written += [index for index in sampled.read if sampler.writes(index)]
    assert everything == set(range(count))
    assert sorted(written) == list(range(count))
