"""Whether two clips are the same film sampled at other instants."""

import numpy as np
from jaxtyping import Float, Int64, UInt8

# Measured on Big Buck Bunny, copies sampled 1/8 and 1/4 s later: the middle of the values that find
# them and keep apart views that the film comes back to.
COPY_BITS = 16  # in which a copy's frame differs at most, if nothing moves
_NEIGHBOUR_SHARE = 0.6  # of the distance to the next sampled frame, which motion adds at most


def aligned_share(
    one: UInt8[np.ndarray, "n 32"], other: UInt8[np.ndarray, "m 32"], *, max_distance: int
) -> float:
    """Return the share of the shorter clip's frames that the other one has at one shift in time.

    Frames half a second apart meet a copy's up to a quarter second off. What stands still looks the
    same then; what moves differs, but by little more than half of what a frame differs from the
    next. So each frame has its own limit, and frames must match in order, at one shift: views that
    a film comes back to match here and there only.

    Args:
        one: Hashes of a clip's frames, in time order; at least one.
        other: Likewise.
        max_distance: Bits that two hashes may differ in whatever moves.
    """
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    distance = _distances(short, long)
    limits = np.maximum(max_distance, COPY_BITS + _NEIGHBOUR_SHARE * _to_neighbours(short))
    is_near = distance <= limits[:, None]
    best = 0
    for shift in range(-len(short), len(long)):
        # A frame lies between two of the other clip's, so either may be its partner.
        met = np.zeros(len(short), dtype=bool)
        for place in (shift, shift + 1):
            first, last = max(0, -place), min(len(short), len(long) - place)
            if last > first:
                rows = np.arange(first, last)
                met[rows] |= is_near[rows, rows + place]
        best = max(best, int(met.sum()))
    return best / len(short)


def _distances(
    one: UInt8[np.ndarray, "n 32"], other: UInt8[np.ndarray, "m 32"]
) -> Int64[np.ndarray, "n m"]:
    bits = np.bitwise_count(one[:, None] ^ other[None])
    counts: np.ndarray = bits.sum(axis=-1, dtype=np.int64)
    return counts


def _to_neighbours(codes: UInt8[np.ndarray, "n 32"]) -> Float[np.ndarray, " n"]:
    """Return each frame's distance to the neighbour that differs most; 0 for a lone frame."""
    steps = np.bitwise_count(codes[1:] ^ codes[:-1]).sum(axis=1).astype(np.float64)
    largest: np.ndarray = np.maximum(np.append(steps, 0.0), np.append(0.0, steps))
    return largest
