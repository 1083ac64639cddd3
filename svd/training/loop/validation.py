"""Loss on held-out clips with fixed noise at fixed noise levels.

A number that moves only when the weights do.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from svd.training.loop.engine import Engine
from svd.training.loop.ranks import gather_rows, share_of
from svd.training.objective.loss import denoising_loss
from svd.training.objective.noise import DrawKey, Purpose
from svd.training.objective.objectives import Objective, sample_latents
from svd.types.batch import LatentBatch

DRAWS = 1_000_000  # stands where the number of a phase stands in the keys of training draws


class Validator:
    """Held-out clips, kept in memory, shared out over the ranks."""

    def __init__(
        self,
        batches: Sequence[LatentBatch],
        *,
        objective: Objective,
        sigmas: tuple[float, ...],
        latent_scale: float,
        seed: int,
    ) -> None:
        """Read this rank's share of the batches.

        Every rank takes equally many, since ranks must call the network together; where they do
        not divide, the last ranks repeat batches of others, which are then counted once.

        Args:
            batches: All held-out batches, in the same order on every rank.
            objective: How they are conditioned.
            sigmas: Noise levels to measure at.
            latent_scale: Of the diffused latents.
            seed: Of the fixed noise.
        """
        self._num_batches = len(batches)
        self._mine = [(index, batches[index]) for index in share_of(len(batches))]
        self._objective = objective
        self._sigmas = sigmas
        self._latent_scale = latent_scale
        self._seed = seed

    def run(self, engine: Engine) -> dict[str, float]:
        """Return the mean loss at each noise level; all ranks call this and get the same."""
        with engine.inference():
            rows = torch.stack(
                [row for index, batch in self._mine for row in self._measure(engine, index, batch)]
            )
        gathered = gather_rows(rows.flatten(), engine.device)
        return self._average(gathered.view(-1, rows.shape[1]))

    def _measure(self, engine: Engine, index: int, batch: LatentBatch) -> Iterator[Tensor]:
        """Yield (batch, noise level, examples, sum of losses) for each noise level."""
        key = DrawKey(self._seed, DRAWS, batch.positions)
        batch = batch.to(engine.device)
        latents = sample_latents(batch, key, latent_scale=self._latent_scale)
        noise = key.normal(Purpose.NOISE, tuple(latents.shape[1:])).to(engine.device)
        conditioning = self._objective.condition(batch, key, dropout=False)
        for place, sigma in enumerate(self._sigmas):
            parts = denoising_loss(
                engine,
                latents=latents,
                noise=noise,
                sigma=torch.full((len(batch),), sigma, device=engine.device),
                conditioning=conditioning,
            )
            total = float(parts.per_example.double().sum())
            yield torch.tensor([index, place, len(batch), total], dtype=torch.float64)

    def _average(self, rows: Tensor) -> dict[str, float]:
        seen: dict[tuple[int, int], tuple[float, float]] = {}
        for index, place, count, total in rows.tolist():
            seen[int(index), int(place)] = (count, total)
        return {
            f"sigma={sigma:g}": sum(seen[index, place][1] for index in range(self._num_batches))
            / sum(seen[index, place][0] for index in range(self._num_batches))
            for place, sigma in enumerate(self._sigmas)
        }
