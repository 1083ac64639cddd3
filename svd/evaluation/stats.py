"""Statistics that metrics share: mergeable moments and bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass
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


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    num: int,
    generator: np.random.Generator,
    *,
    num_resamples: int,
    level: float,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic of resampled examples.

    Args:
        statistic: Takes `num` indices drawn with replacement and returns the number.
        num: Examples to resample from.
        generator: Source of the resamples.
        num_resamples: Bootstrap repetitions.
        level: Coverage wanted, e.g. 0.95.

    Source: Efron & Tibshirani 1993, percentile method.
    """
    if num < 1:
        raise ConfigError("a bootstrap needs at least one example")
    values = np.array(
        [statistic(generator.integers(num, size=num)) for _ in range(num_resamples)],
        dtype=np.float64,
    )
    tail = 100 * (1 - level) / 2
    return Interval(*(float(value) for value in np.percentile(values, [tail, 100 - tail])))


def bootstrap_mean_interval(
    values: np.ndarray, generator: np.random.Generator, *, num_resamples: int, level: float
) -> Interval:
    """Return the percentile bootstrap interval of the mean of per-example values."""
    return bootstrap_interval(
        lambda index: float(values[index].mean()),
        len(values),
        generator,
        num_resamples=num_resamples,
        level=level,
    )


def wilson_interval(successes: int, num: int, *, z: float = 1.959964) -> Interval:
    """Return the interval of a proportion, honest at 0 and at `num` successes.

    Args:
        successes: Examples that succeeded.
        num: Examples tried, at least 1.
        z: Normal quantile of the coverage; the default is 95 percent.

    Source: Wilson 1927.
    """
    if num < 1:
        raise ConfigError("a proportion needs at least one example")
    share = successes / num
    scale = 1 + z**2 / num
    centre = (share + z**2 / (2 * num)) / scale
    half = z * np.sqrt(share * (1 - share) / num + z**2 / (4 * num**2)) / scale
    # At the ends the formula is exact; rounding must not leave the range.
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)))
