"""What chance decides in a training step: a function of (seed, phase, position in the stream).

Each example has a generator of its own, on the CPU. So neither the number of ranks, nor the
device, nor a resume changes what an example meets; and since each purpose has its own stream of
numbers, adding a draw moves no other.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float
from torch import Tensor

from svd.config.training import CondAugConfig, NoiseConfig
from svd.runtime.seed import torch_generator


class Purpose(IntEnum):
    """What a draw is for; numbers are part of every key and never reused."""

    SIGMA = 0
    NOISE = 1
    POSTERIOR = 2  # sampling the latents from the VAE's moments
    DROPOUT = 3
    COND_AUG = 4
    COND_NOISE = 5  # on the pixels of the conditioning frame


@dataclass(frozen=True, slots=True)
class DrawKey:
    """Names the draws of some examples.

    Attributes:
        seed: The recipe's seed.
        phase: Number of the phase; validation has numbers of its own.
        positions: Places of the examples in the global stream, in the order of the batch.
    """

    seed: int
    phase: int
    positions: tuple[int, ...]

    def _generator(self, purpose: Purpose, position: int) -> torch.Generator:
        return torch_generator(self.seed, self.phase, position, int(purpose))

    def normal(self, purpose: Purpose, shape: tuple[int, ...]) -> Float[Tensor, "b ..."]:
        """Draw standard normal values of a shape for each example."""
        return torch.stack(
            [
                torch.randn(shape, generator=self._generator(purpose, position))
                for position in self.positions
            ]
        )

    def uniform(self, purpose: Purpose) -> Float[Tensor, " b"]:
        """Draw one value in [0, 1) for each example."""
        return torch.stack(
            [
                torch.rand((), generator=self._generator(purpose, position))
                for position in self.positions
            ]
        )


def draw_sigma(config: NoiseConfig, key: DrawKey) -> Float[Tensor, " b"]:
    """Draw the noise level of each clip: one for all its frames."""
    normal = key.normal(Purpose.SIGMA, ())
    return (config.p_mean + config.p_std * normal).exp()


def draw_cond_aug(config: CondAugConfig, key: DrawKey) -> Float[Tensor, " b"]:
    """Draw the noise level of each clip's conditioning frame, in units of pixels."""
    normal = key.normal(Purpose.COND_AUG, ())
    return (config.p_mean + config.p_std * normal).exp()
