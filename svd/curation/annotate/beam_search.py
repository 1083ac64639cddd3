"""The most likely sequences of tokens, by beam search, for several questions at once."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class NextScores(Protocol):
    """A language model that is asked about many beginnings at once."""

    def __call__(
        self, questions: list[int], beginnings: list[list[int]]
    ) -> Float[np.ndarray, "b v"]:
        """Return the log probability of each next token.

        Args:
            questions: Number of the question that each beginning answers, ascending.
            beginnings: Of equal length.
        """


class _Beam(NamedTuple):
    score: float  # sum of log probabilities; of an ended sequence, their mean
    tokens: list[int]


def search(
    next_scores: NextScores,
    *,
    num_questions: int,
    start: int,
    end: int,
    num_beams: int,
    min_tokens: int,
    max_tokens: int,
) -> list[list[int]]:
    """Return the best sequence found for each question, from the start token to the end token.

    Sequences are compared by their mean log probability per token, so that short ones have no
    advantage; ties go to the beam and token of lower number, so the answer is always the same.

    Args:
        next_scores: The model.
        num_questions: How many searches go on at once.
        start: First token.
        end: Last token.
        num_beams: Sequences followed at once per question; 1 is greedy.
        min_tokens: Length before which a sequence does not end, the start counted.
        max_tokens: Length at which it must.
    """
    live = {question: [_Beam(0.0, [start])] for question in range(num_questions)}
    done: list[list[_Beam]] = [[] for _ in range(num_questions)]
    for length in range(1, max_tokens):
        questions = [question for question, beams in live.items() for _ in beams]
        if not questions:
            break
        beginnings = [beam.tokens for beams in live.values() for beam in beams]
        scores = np.array(next_scores(questions, beginnings), dtype=np.float64)
        if length < min_tokens:
            scores[:, end] = -np.inf
        if length + 1 == max_tokens:
            scores[:, np.arange(scores.shape[1]) != end] = -np.inf
        owners = np.array(questions)
        for question in list(live):
            beams = live.pop(question)
            following, ended = _extend(beams, scores[owners == question], end, num_beams)
            done[question] += ended
            if following and len(done[question]) < num_beams:
                live[question] = following
    nothing = _Beam(0.0, [start, end])
    return [max(ends, key=lambda beam: beam.score, default=nothing).tokens for ends in done]


def _extend(
    beams: list[_Beam],
    scores: Float[np.ndarray, "b v"],
    end: int,
    num_beams: int,
) -> tuple[list[_Beam], list[_Beam]]:
    """Return the best continuations that go on, and those that have ended (by mean score)."""
    totals = (scores + np.array([beam.score for beam in beams])[:, None]).ravel()
    following: list[_Beam] = []
    ended: list[_Beam] = []
    best = np.argpartition(-totals, min(2 * num_beams, len(totals)) - 1)[: 2 * num_beams]
    for place in sorted(best.tolist(), key=lambda place: (-totals[place], place)):
        number, token = divmod(place, scores.shape[1])
        if not np.isfinite(totals[place]):
            break
        tokens = [*beams[number].tokens, token]
        if token == end:
            ended.append(_Beam(float(totals[place]) / len(tokens), tokens))
        elif len(following) < num_beams:
            following.append(_Beam(float(totals[place]), tokens))
    return following, ended
