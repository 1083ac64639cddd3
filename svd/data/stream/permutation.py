"""A random order without a table: position in, index out, at any size and in any epoch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUM_ROUNDS = 6  # Luby & Rackoff 1988 prove 4 for ideal rounds; two more for a cheap round function
_WORD = (1 << 64) - 1


class Permutation:
    """A stateless pseudo-random permutation of range(size).

    A Feistel network over the next even number of bits; an index that falls outside the range is
    sent through again until it falls inside (cycle walking; Black & Rogaway 2002, section 4),
    which takes under 4 passes on average.
    """

    __slots__ = ("_half_bits", "_keys", "_mask", "size")

    def __init__(self, size: int, *key: int) -> None:
        """Choose one permutation of range(size) by a key of non-negative integers."""
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self.size = size
        self._half_bits = max(1, (max(1, (size - 1).bit_length()) + 1) // 2)
        self._mask = (1 << self._half_bits) - 1
        state = np.random.SeedSequence([size, *key]).generate_state(_NUM_ROUNDS, np.uint64)
        self._keys = tuple(int(word) for word in state)

    def __call__(self, position: int) -> int:
        """Return the index at a position.

        Raises:
            IndexError: The position is not in range(size).
        """
        if not 0 <= position < self.size:
            raise IndexError(f"position {position} is not in 0..{self.size - 1}")
        index: int = self._once(position)
        while index >= self.size:
            index = self._once(index)
        return index

    def whole(self) -> NDArray[np.int64]:
        """Return the indices at all positions, those that calls would give one by one."""
        indices: NDArray[np.uint64] = self._once(np.arange(self.size, dtype=np.uint64))
        while (outside := indices >= self.size).any():
            indices[outside] = self._once(indices[outside])
        return indices.astype(np.int64)

    def _once(self, value: Any) -> Any:  # an int, or an array of uint64
        left, right = value >> self._half_bits, value & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half_bits) | right


def _mix(word: Any) -> Any:  # likewise
    """Scramble 64 bits; finalizer of SplitMix64 (Steele, Lea & Flood 2014).

    An array's products keep their low 64 bits by themselves, an int's by the mask.
    """
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
