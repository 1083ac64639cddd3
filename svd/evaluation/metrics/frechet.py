"""Frechet distance between two sets of feature vectors, exact and without matrix square roots.

Never scipy's `sqrtm`: it is wrong on low-rank products in several releases, and slow.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from svd.errors import ConfigError
from svd.evaluation.stats import RunningMoments

Divisor = Literal["n", "n-1"]  # of the covariance; worth 1-2 percent of the distance at N = 48


class SizePoint(NamedTuple):
    """Mean distance of subsets of one size: how much of a distance is sample size."""

    num: int
    mean: float
    std: float


def frechet_distance(
    features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m d"], *, divisor: Divisor = "n-1"
) -> float:
    """Return the squared Frechet (2-Wasserstein) distance of Gaussians fitted to two sets.

    Chooses the exact method that is cheap: the nuclear norm when both sets are smaller than the
    dimension, else moments and symmetric eigenvalues.

    Raises:
        ConfigError: A set has fewer than two vectors, or the dimensions differ.
    """
    _check(features_a, features_b)
    if max(features_a.shape[0], features_b.shape[0]) < features_a.shape[1]:
        return frechet_from_features(features_a, features_b, divisor=divisor)
    return frechet_from_moments(
        RunningMoments.of(features_a), RunningMoments.of(features_b), divisor=divisor
    )


def frechet_from_features(
    features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m d"], *, divisor: Divisor
) -> float:
    """Return the distance by the nuclear norm of the product of the centred sets.

    With S = X^T X / k the eigenvalues of S_a S_b are the squared singular values of
    X_a X_b^T / sqrt(k_a k_b), so tr sqrt(S_a S_b) is its nuclear norm: no covariance is formed,
    and the distance of a set to itself is zero to rounding.
    """
    _check(features_a, features_b)
    a, b = features_a.double(), features_b.double()
    centred_a, centred_b = a - a.mean(dim=0), b - b.mean(dim=0)
    ddof = _ddof(divisor)
    count_a, count_b = a.shape[0] - ddof, b.shape[0] - ddof
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    trace_a = centred_a.square().sum() / count_a
    trace_b = centred_b.square().sum() / count_b
    cross = torch.linalg.matrix_norm(centred_a @ centred_b.T, ord="nuc")
    distance = shift + trace_a + trace_b - 2 * cross / (count_a * count_b) ** 0.5
    return float(distance.clamp(min=0))  # below zero is rounding


def frechet_from_moments(a: RunningMoments, b: RunningMoments, *, divisor: Divisor) -> float:
    """Return the distance from streamed moments.

    tr sqrt(S_a S_b) = tr sqrt(R S_b R) with R the symmetric root of S_a; both factors are
    positive semidefinite, so eigenvalues below zero are rounding and are clipped.
    """
    ddof = _ddof(divisor)
    cov_a, cov_b = a.covariance(ddof=ddof), b.covariance(ddof=ddof)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root @ cov_b @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    shift = (a.mean - b.mean).square().sum()
    return float((shift + cov_a.trace() + cov_b.trace() - 2 * cross).clamp(min=0))


def frechet_against_size(
    features_a: Float[Tensor, "n d"],
    features_b: Float[Tensor, "n d"],
    sizes: tuple[int, ...],
    generator: np.random.Generator,
    *,
    num_draws: int,
    divisor: Divisor = "n-1",
) -> tuple[SizePoint, ...]:
    """Return the distance of random paired subsets of each size, with its spread.

    The distance falls with N for no other reason than N; numbers of different N must not be
    compared, and this curve shows why.
    """
    points = []
    for size in sizes:
        draws = []
        for _ in range(num_draws):
            index = torch.from_numpy(generator.permutation(features_a.shape[0])[:size].copy())
            draws.append(frechet_distance(features_a[index], features_b[index], divisor=divisor))
        points.append(SizePoint(size, float(np.mean(draws)), float(np.std(draws))))
    return tuple(points)


def extrapolate_to_infinity(points: tuple[SizePoint, ...]) -> float:
    """Return the distance at infinite N by a straight line in 1/N through a curve over N.

    Source: Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score".
    """
    inverse = np.array([1 / point.num for point in points])
    _, intercept = np.polyfit(inverse, np.array([point.mean for point in points]), 1)
    return float(intercept)


def _ddof(divisor: Divisor) -> int:
    return 1 if divisor == "n-1" else 0


def _check(features_a: Tensor, features_b: Tensor) -> None:
    if features_a.shape[1] != features_b.shape[1]:
        raise ConfigError(
            f"features of {features_a.shape[1]} and {features_b.shape[1]} dimensions "
            "cannot be compared"
        )
    if min(features_a.shape[0], features_b.shape[0]) < 2:
        raise ConfigError(
            f"a Frechet distance needs 2 examples a side, got {features_a.shape[0]} and "
            f"{features_b.shape[0]}"
        )
