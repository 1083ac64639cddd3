"""Clips of several shapes in one stream: which clips have which shape, and whose turn it is.

Pictures of unlike shape do not stack, so a batch has one shape. Shapes take turns in proportion to
their clips, in an order that is arithmetic like the order of clips: no state, no table.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from svd.config.data import EncodedSize
from svd.data.stream.permutation import Permutation

_TURNS = 3  # what the permutation orders; part of its key


class Turn(NamedTuple):
    """Whose batch it is."""

    bucket: int
    start: int  # of the batch, in the bucket's own endless order


class BatchTurns:
    """Which bucket each global batch comes from.

    A round gives every bucket about its share of batches, at least one, in shuffled order. Within
    a bucket, batches follow each other without a gap or a repetition.
    """

    def __init__(self, counts: Sequence[int], *, batch_size: int, seed: int) -> None:
        """Fix the turns.

        Args:
            counts: Clips of each bucket, at least one each.
            batch_size: Clips per global batch.
            seed: Chooses the order.
        """
        self._batches = [max(1, round(count / batch_size)) for count in counts]
        self._starts = np.concatenate([[0], np.cumsum(self._batches)])
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = lru_cache(maxsize=2)(self._build_shuffle)

    def locate(self, start: int) -> Turn:
        """Return the turn of the global batch that starts at a position of the stream."""
        if len(self._batches) == 1:
            return Turn(0, start)
        round_index, place = divmod(start // self._batch_size, int(self._starts[-1]))
        slot = self._shuffle(round_index)(place)
        bucket = int(np.searchsorted(self._starts, slot, side="right")) - 1
        batch = round_index * self._batches[bucket] + slot - int(self._starts[bucket])
        return Turn(bucket, batch * self._batch_size)

    def _build_shuffle(self, round_index: int) -> Permutation:
        return Permutation(int(self._starts[-1]), self._seed, _TURNS, round_index)


def pick_sizes(sizes: Sequence[EncodedSize], *, width: int, height: int) -> tuple[int, ...]:
    """Return which sizes a clip is encoded at, by their place.

    Sizes without a bucket are for every clip; of those that share one, the clip takes the one
    whose aspect ratio is nearest to its own, in the logarithm, so that it loses least to the crop.
    """
    nearest: dict[str, tuple[float, int]] = {}
    picked = []
    for place, size in enumerate(sizes):
        if size.bucket is None:
            picked.append(place)
            continue
        distance = abs(float(np.log(size.width / size.height) - np.log(width / height)))
        nearest[size.bucket] = min(nearest.get(size.bucket, (np.inf, -1)), (distance, place))
    return tuple(sorted([*picked, *(place for _, place in nearest.values())]))
