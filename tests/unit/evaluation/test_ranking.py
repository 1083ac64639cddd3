import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svd.errors import ConfigError
from svd.evaluation.metrics.ranking import (
    Games,
    bradley_terry,
    bradley_terry_ratings,
    paper_elo,
    win_matrix,
)

TRUE = np.array([1100.0, 1040.0, 1000.0, 940.0, 920.0])


def study(seed: int, *, games_per_pair: int, strengths: np.ndarray = TRUE) -> Games:
    """Votes of a round robin; every vote is its own cluster."""
    generator = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(len(strengths)), 2)))
    first, second = np.repeat(pairs, games_per_pair, axis=0).T
    chance = 1 / (1 + 10 ** ((strengths[second] - strengths[first]) / 400))
    score = (generator.random(len(first)) < chance).astype(float)
    return Games(first, second, score, np.arange(len(first)))


def test_two_models_are_as_far_apart_as_their_odds() -> None:
    # 100 to 10 are odds of ten: 400 points, but for the half game of the prior.
    strengths = bradley_terry(np.array([[0.0, 1000.0], [100.0, 0.0]]))
    assert strengths[0] - strengths[1] == pytest.approx(400, abs=0.5)
    assert strengths.mean() == pytest.approx(1000)


def test_strengths_are_the_stationary_point_of_the_likelihood() -> None:
    wins = win_matrix(study(3, games_per_pair=50), 5)
    strengths = bradley_terry(wins)
    chance = 1 / (1 + 10 ** ((strengths[None, :] - strengths[:, None]) / 400))
    expected = ((wins + wins.T) * chance).sum(axis=1)
    assert wins.sum(axis=1) == pytest.approx(expected, abs=0.3)  # the prior is half a game


def test_known_strengths_are_found_where_the_papers_elo_shrinks_them() -> None:
    games = study(0, games_per_pair=2000)
    assert bradley_terry(win_matrix(games, 5)) == pytest.approx(TRUE, abs=12)
    few = study(1, games_per_pair=192)
    elo = paper_elo(few, 5, np.random.default_rng(0), num_shuffles=200)
    strengths = bradley_terry(win_matrix(few, 5))
    assert elo.mean() == pytest.approx(1000)
    assert np.ptp(elo) < 0.8 * np.ptp(strengths)
    assert (np.argsort(elo) == np.argsort(strengths)).all()


def test_one_game_of_the_papers_elo_moves_half_a_point() -> None:
    one = Games(np.array([0]), np.array([1]), np.array([1.0]), np.array([0]))
    assert paper_elo(one, 2, np.random.default_rng(0), num_shuffles=3).tolist() == [1000.5, 999.5]


def test_the_papers_elo_leaves_ties_out() -> None:
    tied = Games(np.array([0, 0]), np.array([1, 1]), np.array([1.0, 0.5]), np.array([0, 1]))
    assert paper_elo(tied, 2, np.random.default_rng(0), num_shuffles=3).tolist() == [1000.5, 999.5]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    hits = []
    for seed in range(200):
        found = bradley_terry_ratings(
            study(seed, games_per_pair=40), 5, np.random.default_rng(seed), num_resamples=200
        )
        hits.append((found.low <= TRUE) & (found.high >= TRUE))
    coverage = np.mean(hits)
    assert 0.90 <= coverage <= 0.99, coverage


def test_votes_that_hang_together_make_wider_intervals() -> None:
    games = study(5, games_per_pair=20)
    doubled = Games(*(np.concatenate([part, part]) for part in games))
    apart = doubled._replace(cluster=np.arange(len(doubled.cluster)))
    widths = [
        bradley_terry_ratings(one, 5, np.random.default_rng(0), num_resamples=400)
        for one in (doubled, apart)
    ]
    together, alone = ((one.high - one.low).mean() for one in widths)
    assert together > 1.2 * alone


def test_a_model_that_never_lost_keeps_a_finite_strength() -> None:
    strengths = bradley_terry(np.array([[0.0, 9, 9], [0, 0, 5], [0, 4, 0]]))
    assert np.isfinite(strengths).all()
    assert strengths.argmax() == 0


def test_models_that_never_met_are_refused() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[2, 3] = 3
    with pytest.raises(ConfigError, match="links model 0 with models \\[2, 3\\]"):
        bradley_terry(wins)


@given(st.permutations(range(5)), st.integers(0, 50))
def test_the_order_of_models_does_not_matter(order: list[int], seed: int) -> None:
    wins = win_matrix(study(seed, games_per_pair=8), 5)
    permuted = wins[np.ix_(order, order)]
    assert bradley_terry(permuted) == pytest.approx(bradley_terry(wins)[order], abs=1e-6)


@given(st.integers(0, 50))
def test_a_tie_is_half_a_win_for_each(seed: int) -> None:
    games = study(seed, games_per_pair=6)
    tie = Games(np.array([1]), np.array([2]), np.array([0.5]), np.array([0]))
    wins = win_matrix(Games(*map(np.concatenate, zip(games, tie, strict=True))), 5)
    extra = wins - win_matrix(games, 5)
    assert extra[1, 2] == extra[2, 1] == 0.5
    assert extra.sum() == 1
