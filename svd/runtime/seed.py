"""Randomness from (seed, step, rank): a resumed run draws what an unbroken one draws."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def numpy_generator(*key: int) -> np.random.Generator:
    """Return a generator that depends on nothing but its key of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def torch_generator(*key: int, device: str = "cpu") -> "torch.Generator":
    """Return a torch generator seeded from a key such as (seed, step, rank)."""
    import torch

    generator = torch.Generator(device=device)
    state = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]
    generator.manual_seed(int(state >> 1))  # torch takes 63 bits
    return generator
