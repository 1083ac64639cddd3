"""What votes say: Bradley-Terry decides, the paper's Elo stands beside it, a judge stays apart."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from svd.errors import ConfigError
from svd.evaluation.metrics.ranking import (
    Games,
    Ratings,
    bradley_terry_ratings,
    paper_elo,
    win_matrix,
)
from svd.types.vote import (
    QUESTIONS,
    Answer,
    JudgedVideo,
    Judgement,
    Question,
    Study,
    StudyPair,
    Vote,
)

MIN_CHECKS_RIGHT: Final = 0.8  # of a rater's attention checks; below it none of its votes counts
Asked = Literal["quality", "following", "aggregate"]
_SCORE: Final = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class Standing:
    """How the models stand on one question.

    Attributes:
        asked: The question; "aggregate" pools the votes of both.
        ratings: Bradley-Terry, in the order of the study's models.
        elo: The paper's Elo.
        wins: How often the row's model beat the column's; a tie is half a win.
        num_votes: So many answers.
        agreement: Krippendorff's alpha between raters; None with less than two on any pair.
    """

    asked: Asked
    ratings: Ratings
    elo: Float[ndarray, " m"]
    wins: Float[ndarray, "m m"]
    num_votes: int
    agreement: float | None


@dataclass(frozen=True, slots=True)
class JudgeStanding:
    """How the models stand by an automatic judge, and how far people agree with it.

    Attributes:
        asked: The question.
        ratings: Bradley-Terry over one verdict a pair.
        wins: As a standing's.
        num_compared: Pairs that both people (by majority) and the judge decided.
        accuracy: Share of them decided alike; None if there are none.
        kappa: Cohen's kappa of the same; None if it is not defined.
    """

    asked: Asked
    ratings: Ratings
    wins: Float[ndarray, "m m"]
    num_compared: int
    accuracy: float | None
    kappa: float | None


def counted_votes(votes: Sequence[Vote]) -> tuple[tuple[Vote, ...], tuple[str, ...]]:
    """Return the votes that count, without checks, and the raters whose votes do not."""
    checks: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        if vote.is_check:
            checks[vote.rater].append(vote.quality == "first")
    inattentive = {
        rater for rater, right in checks.items() if sum(right) / len(right) < MIN_CHECKS_RIGHT
    }
    counted = tuple(v for v in votes if not v.is_check and v.rater not in inattentive)
    return counted, tuple(sorted(inattentive))


def stand(study: Study, votes: Sequence[Vote], asked: Asked) -> Standing | None:
    """Return how the models stand by votes that count; None while they do not link all models."""
    answers = [
        (vote, answer)
        for question in _questions(asked)
        for vote in votes
        if (answer := _answer(vote, question)) is not None
    ]
    if not answers:
        return None
    # A rater's answers on one item hang together: it is they that are resampled.
    groups = _numbered((vote.rater, vote.item_id) for vote, _ in answers)
    games = _games(study, [(v.first_model, v.second_model, a) for v, a in answers], groups)
    num_models = len(study.models)
    try:
        ratings = bradley_terry_ratings(games, num_models, _generator(study))
    except ConfigError:
        return None
    return Standing(
        asked,
        ratings,
        paper_elo(games, num_models, _generator(study)),
        win_matrix(games, num_models),
        len(answers),
        None if asked == "aggregate" else krippendorff_alpha(_by_pair(answers)),
    )


def stand_by_judge(
    study: Study, judgement: Judgement, votes: Sequence[Vote], asked: Asked
) -> JudgeStanding | None:
    """Return how the models stand by an automatic judge; None where it cannot answer."""
    verdicts = [
        (pair, answer)
        for question in _questions(asked)
        for pair, answer in _verdicts(study, judgement, question)
    ]
    if not verdicts:
        return None
    groups = _numbered(pair.item_id for pair, _ in verdicts)
    games = _games(study, [(p.first_model, p.second_model, a) for p, a in verdicts], groups)
    try:
        ratings = bradley_terry_ratings(games, len(study.models), _generator(study))
    except ConfigError:
        return None
    alike = []
    for question in _questions(asked):
        judged = {pair.pair_id: answer for pair, answer in _verdicts(study, judgement, question)}
        by_people = _majorities(votes, question)
        alike += [(judged[pair], answer) for pair, answer in by_people.items() if pair in judged]
    wins = win_matrix(games, len(study.models))
    return JudgeStanding(asked, ratings, wins, len(alike), *_agreement(alike))


def krippendorff_alpha(units: Iterable[Sequence[Answer]]) -> float | None:
    """Return the agreement of raters beyond chance; 1 is perfect, 0 is chance.

    Args:
        units: The answers to each pair; pairs with fewer than two say nothing.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", nominal data.
    """
    coincidences: dict[tuple[Answer, Answer], float] = defaultdict(float)
    for answers in units:
        for i, one in enumerate(answers):
            for j, other in enumerate(answers):
                if i != j:
                    coincidences[one, other] += 1 / (len(answers) - 1)
    totals: dict[Answer, float] = defaultdict(float)
    for (one, _), count in coincidences.items():
        totals[one] += count
    num = sum(totals.values())
    expected = num**2 - sum(total**2 for total in totals.values())
    if expected == 0:  # nobody was asked twice, or all gave one answer
        return None
    observed = sum(count for (one, other), count in coincidences.items() if one != other)
    return 1 - (num - 1) * observed / expected


def _questions(asked: Asked) -> tuple[Question, ...]:
    return QUESTIONS if asked == "aggregate" else (asked,)


def _answer(vote: Vote, question: Question) -> Answer | None:
    return vote.quality if question == "quality" else vote.following


def _games(
    study: Study, answers: Sequence[tuple[str, str, Answer]], groups: Sequence[int]
) -> Games:
    place = {model: index for index, model in enumerate(study.models)}
    return Games(
        np.array([place[first] for first, _, _ in answers]),
        np.array([place[second] for _, second, _ in answers]),
        np.array([_SCORE[answer] for _, _, answer in answers]),
        np.array(groups),
    )


def _numbered(names: Iterable[object]) -> list[int]:
    numbers: dict[object, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _generator(study: Study) -> np.random.Generator:
    return np.random.default_rng(study.seed)


def _by_pair(answers: Sequence[tuple[Vote, Answer]]) -> list[list[Answer]]:
    units: dict[str, list[Answer]] = defaultdict(list)
    for vote, answer in answers:
        units[vote.pair_id].append(answer)
    return [unit for unit in units.values() if len(unit) > 1]


def _majorities(votes: Sequence[Vote], question: Question) -> dict[str, Answer]:
    """Return what most raters said of each pair; pairs without a majority are left out."""
    counts: dict[str, Counter[Answer]] = defaultdict(Counter)
    for vote in votes:
        answer = _answer(vote, question)
        if answer in ("first", "second"):
            counts[vote.pair_id][answer] += 1
    return {
        pair: "first" if count["first"] > count["second"] else "second"
        for pair, count in counts.items()
        if count["first"] != count["second"]
    }


def _verdicts(
    study: Study, judgement: Judgement, question: Question
) -> list[tuple[StudyPair, Answer]]:
    """Return the judge's answer to each pair; equal scores are a tie."""
    scores = {video.sha256: _judged(video, question) for video in judgement.videos}
    verdicts: list[tuple[StudyPair, Answer]] = []
    for pair in study.pairs:
        first, second = scores.get(pair.first_sha256), scores.get(pair.second_sha256)
        if pair.is_check or first is None or second is None:
            continue
        verdict: Answer = "tie"
        if first != second:
            verdict = "first" if first > second else "second"
        verdicts.append((pair, verdict))
    return verdicts


def _judged(video: JudgedVideo, question: Question) -> float | None:
    return video.quality if question == "quality" else video.following


def _agreement(alike: Sequence[tuple[Answer, Answer]]) -> tuple[float | None, float | None]:
    """Return the share decided alike, and Cohen's kappa (Cohen 1960)."""
    if not alike:
        return None, None
    observed = sum(one == other for one, other in alike) / len(alike)
    expected = 0.0
    for answer in ("first", "second"):
        by_judge = sum(one == answer for one, _ in alike) / len(alike)
        by_people = sum(other == answer for _, other in alike) / len(alike)
        expected += by_judge * by_people
    return observed, None if expected == 1 else (observed - expected) / (1 - expected)
