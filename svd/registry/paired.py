"""Whether one model beats another on the same clips: the bootstrap of their mean difference."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_NUM_RESAMPLES, _LEVEL = 2000, 0.95


class Difference(NamedTuple):
    """Mean difference and the ends of its interval."""

    mean: float
    low: float
    high: float


def paired_difference(differences: Sequence[float], *, seed: int) -> Difference:
    """Return the mean of per-clip differences with its percentile bootstrap interval.

    Args:
        differences: One a clip; what both models share (an easy clip) has dropped out of it.
        seed: Of the resamples.

    Source: Efron & Tibshirani 1993, percentile method on paired differences.
    """
    values = np.asarray(differences)
    # Its own generator: svd.runtime.seed knows torch, which the registry does without.
    generator = np.random.default_rng([seed, len(values)])
    drawn = generator.integers(len(values), size=(_NUM_RESAMPLES, len(values)))
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.percentile(values[drawn].mean(axis=1), [tail, 100 - tail])
    return Difference(float(values.mean()), float(low), float(high))
