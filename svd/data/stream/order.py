"""Which example stands at which position of an endless stream: arithmetic, no state."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from svd.data.stream.permutation import Permutation
from svd.data.stream.shared_cache import SharedCache
from svd.errors import ConfigError

_SHARDS, _EXAMPLES = 1, 2  # what a permutation orders; part of its key


class Address(NamedTuple):
    """Where an example lies."""

    epoch: int
    shard: int  # place in the sequence of shards
    example: int  # place in the shard's index


class StreamOrder:
    """The endless shuffled order over the examples of some shards.

    Each epoch visits every example once. The shards are permuted, then taken in groups of
    `shards_mixed`, and the examples of a group are permuted among themselves; with no more
    shards than that, an epoch is one full permutation. Groups bound how many shards are in use
    at a time; for a position anywhere, the cost is the same: nothing before it is visited.
    """

    def __init__(self, counts: Sequence[int], *, seed: int, shards_mixed: int) -> None:
        """Fix the order.

        Args:
            counts: Examples in each shard that may be drawn (a prefix of its index).
            seed: Chooses the order.
            shards_mixed: Shards per group.

        Raises:
            ConfigError: There is no example at all.
        """
        self._counts = np.asarray(counts, dtype=np.int64)
        self.num_examples = int(self._counts.sum())
        if self.num_examples == 0:
            raise ConfigError("no example to draw: every shard is empty for this window")
        self._seed = seed
        self._shards_mixed = shards_mixed
        self._flat_starts = np.concatenate([[0], np.cumsum(self._counts)])
        # A batch may straddle the border of two epochs, or of two groups.
        self._epoch = SharedCache(self._build_epoch, max_size=2)
        self._group = lru_cache(maxsize=4)(self._build_group)

    def locate(self, position: int) -> Address:
        """Return the example at a position of the stream."""
        epoch, offset = divmod(position, self.num_examples)
        shard_order, starts = self._epoch(epoch)
        slot = int(np.searchsorted(starts, offset, side="right")) - 1
        group = slot // self._shards_mixed
        first = int(starts[group * self._shards_mixed])
        stop = int(starts[min((group + 1) * self._shards_mixed, len(shard_order))])
        shuffled = first + self._group(stop - first, epoch, group)(offset - first)
        slot = int(np.searchsorted(starts, shuffled, side="right")) - 1
        return Address(epoch, int(shard_order[slot]), shuffled - int(starts[slot]))

    def flat(self, index: int) -> Address:
        """Return the example of an unshuffled index in range(num_examples)."""
        shard = int(np.searchsorted(self._flat_starts, index, side="right")) - 1
        return Address(0, shard, index - int(self._flat_starts[shard]))

    def _build_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the shards in this epoch's order, and where each starts in it."""
        order = Permutation(len(self._counts), self._seed, _SHARDS, epoch).whole()
        order = order[self._counts[order] > 0]
        starts = np.concatenate([[0], np.cumsum(self._counts[order])])
        return order, starts

    def _build_group(self, size: int, epoch: int, group: int) -> Permutation:
        return Permutation(size, self._seed, _EXAMPLES, epoch, group)
