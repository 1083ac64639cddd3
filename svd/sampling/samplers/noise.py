"""Noise that depends on the seed of each sample and on nothing else."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from svd.runtime.seed import torch_generator


class NoiseSource:
    """One generator per sample, drawn on the CPU in float32.

    A sample therefore gets the same noise alone and in any batch, on any device and in any
    precision.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = tuple(generators)

    @classmethod
    def from_seeds(cls, seeds: Sequence[int], *, segment: int = 0) -> "NoiseSource":
        """Return the source of a batch.

        Args:
            seeds: One non-negative seed per sample.
            segment: Which part of a long video is sampled, from 0.
        """
        return cls([torch_generator(seed, segment) for seed in seeds])

    def __len__(self) -> int:
        return len(self._generators)

    def draw(self, shape: Sequence[int], device: torch.device) -> Float[Tensor, "b ..."]:
        """Return standard normal noise of shape (len(self), *shape)."""
        drawn = [torch.randn(tuple(shape), generator=gen) for gen in self._generators]
        return torch.stack(drawn).to(device)
