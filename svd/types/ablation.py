"""What a study of thresholds leaves on disk: its plan, and what it found."""

from typing import Literal

from pydantic import Field

from svd.types.base import Record


class AblationPlan(Record):
    """plan.json: what is trained and asked; a folder holds one study."""

    axes: tuple[tuple[str, Literal["lowest", "highest"]], ...]
    shares: tuple[float, ...]
    num_steps: int = Field(gt=0)  # optimizer steps of every proxy
    prompts: tuple[str, ...] = Field(min_length=1)
    sampling: dict[str, object]  # keys that differ from the sampler's defaults
    seed: int = Field(ge=0)
    recipe_sha256: str  # of the sections that decide a proxy
    annotations_sha256: str


class PartStanding(Record):
    """How the model of one part stands on its axis; strengths in Elo points, mean 1000."""

    part: str
    share: float
    num_clips: int = Field(ge=0)  # it was trained on
    quality: float | None
    following: float | None
    aggregate: float
    low: float  # of the aggregate, 95 %
    high: float


class AxisOutcome(Record):
    """One axis: all its parts, and the one that stands highest."""

    score: str
    drops: Literal["lowest", "highest"]
    parts: tuple[PartStanding, ...]
    winner: str
    # Whether the winner's interval lies above that of the unfiltered part, over enough comparisons;
    # if not, more votes or prompts are needed and the proposal says so.
    is_clear: bool


class AblationReport(Record):
    """report.json of a study of thresholds."""

    ranked_by: str  # "people", or the automatic judge's name
    num_votes: int = Field(ge=0)
    num_prompts: int = Field(gt=0)
    num_steps: int = Field(gt=0)
    outcomes: tuple[AxisOutcome, ...]
