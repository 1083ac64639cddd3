"""From votes to a ranking: Bradley-Terry strengths with intervals, and the paper's Elo beside them.

Strengths are on Elo's scale: 400 points are odds of ten to one. The paper's Elo (K = 1) stops
before it has converged and its spread is order noise; it is here for fidelity, Bradley-Terry
decides.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from svd.errors import ConfigError

ELO_SCALE = 400 / math.log(10)  # points per unit of log odds
ELO_START = 1000.0  # of every model; also the mean that strengths are anchored to
ELO_K = 1.0  # points a game can move; Blattmann et al. 2023, appendix E.1
NUM_SHUFFLES = 1000  # likewise: orders of the games that are averaged over
# Drawn games added to each model, spread over the opponents it met: a model that won all its
# games, or none, keeps a finite strength. One in thousands of votes, so it moves nothing else.
PRIOR_GAMES = 0.5
_MAX_STEPS, _TOLERANCE = 50, 1e-9  # of Newton's method; in log odds


class Games(NamedTuple):
    """Pairwise votes; a tie is half a win for each side.

    Attributes:
        first: Index of one model of each pair.
        second: Index of the other.
        score: 1 if the first won, 0 if the second, 0.5 for a tie.
        cluster: Number of the group a vote hangs together with, such as one rater's votes on one
            prompt, from 0; intervals resample whole groups.
    """

    first: Int[ndarray, " n"]
    second: Int[ndarray, " n"]
    score: Float[ndarray, " n"]
    cluster: Int[ndarray, " n"]


class Ratings(NamedTuple):
    """Strength of each model in Elo points, mean 1000, with a confidence interval."""

    value: Float[ndarray, " m"]
    low: Float[ndarray, " m"]
    high: Float[ndarray, " m"]


def win_matrix(games: Games, num_models: int) -> Float[ndarray, "m m"]:
    """Return how often the row's model beat the column's; a tie counts half for both."""
    wins: np.ndarray = _weighted_wins(games, num_models, np.ones((1, len(games.score))))[0]
    return wins


def bradley_terry(wins: Float[ndarray, "m m"]) -> Float[ndarray, " m"]:
    """Return the maximum-likelihood strengths in Elo points, mean 1000.

    Args:
        wins: As `win_matrix` gives it.

    Raises:
        ConfigError: No chain of votes links some two models, so they cannot be compared.

    Source: Bradley & Terry 1952.
    """
    strengths: np.ndarray = _fit((wins + _prior(wins))[None])[0]
    return strengths


def bradley_terry_ratings(
    games: Games,
    num_models: int,
    generator: np.random.Generator,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Ratings:
    """Return strengths with percentile bootstrap intervals over clusters of votes.

    Raises:
        ConfigError: No chain of votes links some two models, so they cannot be compared.
    """
    wins = win_matrix(games, num_models)
    prior = _prior(wins)
    num_clusters = int(games.cluster.max()) + 1
    share = np.full(num_clusters, 1 / num_clusters)
    times = generator.multinomial(num_clusters, share, size=num_resamples)
    resampled = _weighted_wins(games, num_models, times[:, games.cluster].astype(float))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(_fit(resampled + prior), [tail, 100 - tail], axis=0)
    return Ratings(_fit((wins + prior)[None])[0], low, high)


def paper_elo(
    games: Games,
    num_models: int,
    generator: np.random.Generator,
    *,
    num_shuffles: int = NUM_SHUFFLES,
) -> Float[ndarray, " m"]:
    """Return Elo ratings (K = 1, start 1000) averaged over shuffled orders; ties are left out.

    Source: Blattmann et al. 2023, appendix E.1.
    """
    decided = np.flatnonzero(games.score != 0.5)
    first, second, score = games.first[decided], games.second[decided], games.score[decided]
    orders = generator.permuted(np.tile(np.arange(len(decided)), (num_shuffles, 1)), axis=1)
    ratings = np.full((num_shuffles, num_models), ELO_START)
    rows = np.arange(num_shuffles)
    for game in orders.T:  # one game of every order at once
        one, other = first[game], second[game]
        difference = ratings[rows, other] - ratings[rows, one]
        gain = ELO_K * (score[game] - 1 / (1 + 10 ** (difference / 400)))
        ratings[rows, one] += gain
        ratings[rows, other] -= gain
    mean: np.ndarray = ratings.mean(axis=0)
    return mean


def _weighted_wins(
    games: Games, num_models: int, weights: Float[ndarray, "r n"]
) -> Float[ndarray, "r m m"]:
    """Return one win matrix for each row of weights of the votes."""
    cells = num_models * num_models
    forward = games.first * num_models + games.second
    backward = games.second * num_models + games.first
    matrices = [
        np.bincount(forward, weights=row * games.score, minlength=cells)
        + np.bincount(backward, weights=row * (1 - games.score), minlength=cells)
        for row in weights
    ]
    return np.stack(matrices).reshape(-1, num_models, num_models)


def _prior(wins: Float[ndarray, "m m"]) -> Float[ndarray, "m m"]:
    """Return drawn games between models that met, and refuse models that nothing links."""
    met = (wins + wins.T) > 0
    np.fill_diagonal(met, val=False)
    reach = np.linalg.matrix_power(met.astype(float) + np.eye(len(met)), len(met)) > 0
    if not reach.all():
        apart = np.flatnonzero(~reach[0]).tolist()
        raise ConfigError(
            f"no chain of votes links model 0 with models {apart}: collect votes between them"
        )
    prior: np.ndarray = met * PRIOR_GAMES / 2 / max(1, len(met) - 1)
    return prior


def _fit(wins: Float[ndarray, "r m m"]) -> Float[ndarray, "r m"]:
    """Return Elo points of several studies at once, by Newton's method.

    The log likelihood sum_ij w_ij log sigma(s_i - s_j) is concave; it does not change when all
    strengths move together, so the step is taken in the plane of mean zero.
    """
    games = wins + wins.transpose(0, 2, 1)
    num_models = wins.shape[1]
    strength = np.zeros(wins.shape[:2])
    for _ in range(_MAX_STEPS):
        chance = 1 / (1 + np.exp(strength[:, None, :] - strength[:, :, None]))
        gradient = (wins - games * chance).sum(axis=2)
        curvature = games * chance * (1 - chance)
        hessian = -curvature + 1 / num_models  # the constant fills the direction of equal moves
        diagonal = np.arange(num_models)
        hessian[:, diagonal, diagonal] += curvature.sum(axis=2)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        strength += step.clip(-2, 2)  # far from the optimum a full step may overshoot
        if np.abs(step).max() < _TOLERANCE:
            break
    strength -= strength.mean(axis=1, keepdims=True)
    points: np.ndarray = ELO_START + ELO_SCALE * strength
    return points
