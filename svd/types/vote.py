"""A study of preference: which videos are compared, and what was answered."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.types.base import Record

Question = Literal["quality", "following"]
Answer = Literal["first", "second", "tie"]
QUESTIONS: tuple[Question, ...] = ("quality", "following")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"  # of models and items; no path can be written so
SHA256 = r"^[0-9a-f]{64}$"


class StudyItem(Record):
    """What all models were asked for."""

    item_id: str = Field(pattern=NAME)  # clip id or prompt's slug, as the samples are named
    prompt: str = Field(default="", max_length=2000)
    picture_sha256: str | None = Field(default=None, pattern=SHA256)  # the conditioning frame

    @property
    def asks(self) -> bool:
        """Whether there is anything to follow; without it only quality is asked about."""
        return bool(self.prompt) or self.picture_sha256 is not None


class StudyPair(Record):
    """Two videos of one item; a check's first video is sound and its second is ruined."""

    pair_id: str = Field(pattern=NAME)
    item_id: str = Field(pattern=NAME)
    first_model: str = Field(pattern=NAME)
    second_model: str = Field(pattern=NAME)
    first_sha256: str = Field(pattern=SHA256)  # of the video file
    second_sha256: str = Field(pattern=SHA256)
    is_check: bool = False


class Study(Record):
    """study.json: everything that is decided before the first vote."""

    title: str = Field(min_length=1, max_length=200)
    models: tuple[str, ...] = Field(min_length=2)
    items: tuple[StudyItem, ...] = Field(min_length=1)
    pairs: tuple[StudyPair, ...] = Field(min_length=1)
    seed: int = Field(ge=0)  # of orders and sides
    votes_per_pair: int = Field(ge=1)
    check_every: int = Field(ge=2)  # one pair in so many is a check
    ties: bool  # whether "about the same" may be answered; the paper's raters had to choose
    min_watch_s: float = Field(ge=0)  # both videos are seen so long before a vote is taken

    @model_validator(mode="after")
    def _pairs_are_of_the_study(self) -> Self:
        models, items = set(self.models), {item.item_id for item in self.items}
        for pair in self.pairs:
            named = {pair.first_model} if pair.is_check else {pair.first_model, pair.second_model}
            if not named <= models or pair.item_id not in items:
                raise ValueError(f"pair {pair.pair_id} names a model or item that is not listed")
        return self


class Vote(Record):
    """One rater's answers to one pair, as `svd vote export` writes them."""

    pair_id: str
    item_id: str
    first_model: str
    second_model: str
    is_check: bool
    rater: str  # pseudonym
    quality: Answer
    following: Answer | None  # None where nothing was asked for
    first_was_left: bool
    watched_ms: int = Field(ge=0)
    replays: int = Field(ge=0)
    given_at: float  # seconds since 1970


class JudgedVideo(Record):
    """An automatic judge's scores of one video; higher is better."""

    sha256: str = Field(pattern=SHA256)
    quality: float
    following: float | None


class Judgement(Record):
    """judge.json: what an automatic judge says of every video of a study."""

    judge: str  # "auto:" and the hash of what decides its scores
    weights: dict[str, float]
    videos: tuple[JudgedVideo, ...]
