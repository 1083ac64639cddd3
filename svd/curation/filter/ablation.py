"""Which parts of a curated set are compared to choose a threshold: the paper's ablation.

For each annotation on its own the paper trains one model on everything and one on each set that
lacks the worst 12.5, 25 and 50 % of the clips (section 3.3 and appendix E.2.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from svd.config.curation import FilterConfig, Threshold
from svd.curation.filter.sweep import Axis
from svd.curation.filter.thresholds import reasons_against, resolve_bounds
from svd.errors import ConfigError
from svd.types.annotation import Annotation

UNFILTERED = "unfiltered"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the clips.

    Attributes:
        axis: The score whose worst clips are left out; None leaves all in.
        share: Of the clips that have the score, how many are left out.
    """

    axis: Axis | None
    share: float

    @property
    def name(self) -> str:
        """A file's name, and the model's in the ranking."""
        if self.axis is None:
            return UNFILTERED
        return f"{self.axis.score}-{self.axis.drops}-{100 * self.share:g}"

    @property
    def threshold(self) -> Threshold | None:
        """What `filter.thresholds` would say of the score."""
        if self.axis is None:
            return None
        if self.axis.drops == "lowest":
            return Threshold(drop_lowest=self.share)
        return Threshold(drop_highest=self.share)


def plan_parts(axes: Sequence[Axis], shares: Sequence[float]) -> tuple[Part, ...]:
    """Return everything once, then each axis with each share, the mildest first.

    Raises:
        ConfigError: No axis, one twice, no share, or one that is no share.
    """
    if not axes or len({axis.score for axis in axes}) < len(axes):
        raise ConfigError("name one or more scores, each once")
    wrong = [share for share in shares if not 0 < share < 1]
    if wrong or not shares:
        raise ConfigError(f"shares={list(shares)}: one or more between 0 and 1, such as 0.25")
    steps = sorted(set(shares))
    return (Part(None, 0.0), *(Part(axis, share) for axis in axes for share in steps))


def clips_of(part: Part, rows: Sequence[Annotation], config: FilterConfig) -> frozenset[str]:
    """Return the clip_ids of a part; the share is of all rows that have the score.

    Raises:
        ConfigError: No clip has the score.
    """
    if part.axis is None or part.threshold is None:
        return frozenset(row.clip_id for row in rows)
    bounds = resolve_bounds(rows, {part.axis.score: part.threshold})
    missing = config.missing_scores
    return frozenset(
        row.clip_id for row in rows if not reasons_against(row, bounds, missing_scores=missing)
    )
