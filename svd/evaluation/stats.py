"""Statistics that metrics share: mergeable moments and bootstrap intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from svd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RunningMoments:
    """Count, mean and scatter of feature vectors, in float64; two of them merge exactly.

    Attributes:
        num: Vectors seen.
        mean: Their mean.
        scatter: Sum of outer products of deviations from the mean (num times the covariance).
    """

    num: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]

    @classmethod
    def empty(cls, dim: int) -> "RunningMoments":
        """Return the moments of no vectors: the neutral element of `merged`."""
        zeros = torch.zeros(dim, dim, dtype=torch.float64)
        return cls(num=0, mean=zeros[0].clone(), scatter=zeros)

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> "RunningMoments":
        """Return the moments of a batch of feature vectors."""
        if features.shape[0] == 0:
            return cls.empty(features.shape[1])
        values = features.double()
        mean = values.mean(dim=0)
        centred = values - mean
        return cls(num=values.shape[0], mean=mean, scatter=centred.T @ centred)

    def merged(self, other: "RunningMoments") -> "RunningMoments":
        """Return the moments of both sets together.

        Source: Chan, Golub & LeVeque 1979, pairwise update of mean and scatter.
        """
        num = self.num + other.num
        if num == 0:
            return self
        delta = other.mean - self.mean
        return RunningMoments(
            num=num,
            mean=self.mean + delta * (other.num / num),
            scatter=self.scatter
            + other.scatter
            + torch.outer(delta, delta) * (self.num * other.num / num),
        )

    def covariance(self, *, ddof: int) -> Float[Tensor, "d d"]:
        """Return the covariance with divisor num - ddof."""
        return self.scatter / (self.num - ddof)


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def bootstrap_mean_interval(
    values: np.ndarray, generator: np.random.Generator, *, num_resamples: int, level: float
) -> Interval:
    """Return the percentile bootstrap interval of the mean of per-example values.

    Args:
        values: One number an example.
        generator: Source of the resamples.
        num_resamples: Bootstrap repetitions.
        level: Coverage wanted, e.g. 0.95.

    Source: Efron & Tibshirani 1993, percentile method.
    """
    _check_count(len(values))
    drawn = generator.integers(len(values), size=(num_resamples, len(values)))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(values[drawn].mean(axis=1), [tail, 100 - tail])
    return Interval(float(low), float(high))


def bootstrap_spread_interval(
    statistic: Callable[[np.ndarray], float],
    value: float,
    num: int,
    generator: np.random.Generator,
    *,
    num_resamples: int,
    level: float,
) -> Interval:
    """Return value +- z times the bootstrap's standard deviation.

    For set distances: resampling with replacement repeats examples, which shrinks the set and so
    raises a distance. Percentiles would miss the value itself; the spread is still right.

    Args:
        statistic: Takes `num` indices drawn with replacement and returns the number.
        value: The statistic of the examples themselves.
        num: Examples to resample from.
        generator: Source of the resamples.
        num_resamples: Bootstrap repetitions.
        level: Coverage wanted under a normal law, e.g. 0.95.

    Source: Efron & Tibshirani 1993, standard normal interval.
    """
    _check_count(num)
    draws = [statistic(generator.integers(num, size=num)) for _ in range(num_resamples)]
    half = NormalDist().inv_cdf((1 + level) / 2) * float(np.std(draws, ddof=1))
    return Interval(value - half, value + half)


def wilson_interval(successes: int, num: int, *, level: float) -> Interval:
    """Return the interval of a proportion; honest at 0 and at `num` successes.

    Source: Wilson 1927.
    """
    _check_count(num)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / num
    scale = 1 + z**2 / num
    centre = (share + z**2 / (2 * num)) / scale
    half = z * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2)) / scale
    # At 0 and 1 the formula is exact; rounding must not leave the range.
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def _check_count(num: int) -> None:
    if num < 1:
        raise ConfigError("an interval needs at least one example")
