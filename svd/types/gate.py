"""What a version must show before it may be used, and what was decided."""

from typing import Literal

from pydantic import Field, model_validator

from svd.types.base import Record

Verdict = Literal["pass", "fail", "insufficient"]


class Gate(Record):
    """One condition on one metric.

    `at-least` and `at-most` compare with `threshold`. `no-worse-than-production` compares with the
    same metric of the version in production, in the metric's own direction, with `margin` of slack;
    without a version in production it passes.
    """

    metric: str  # MetricRecord.name, e.g. "first-frame retrieval"
    comparison: Literal["at-least", "at-most", "no-worse-than-production"]
    threshold: float | None = None  # in the metric's unit; None for a comparison with production
    margin: float = Field(default=0.0, ge=0)  # slack in the metric's unit, for production only
    # Which number must satisfy the bound: the value, or the unfavourable end of its interval.
    # "paired", against production only: the mean difference clip by clip, with a bootstrap
    # interval; worse beyond the margin at both ends fails, at one end it is insufficient.
    judged_on: Literal["value", "interval", "paired"] = "value"
    # MetricRecord.variant to judge; needed only where a metric is measured in several variants.
    variant: str | None = None
    min_num: int = Field(default=1, ge=1)  # fewer examples make the verdict "insufficient"

    @model_validator(mode="after")
    def _threshold_fits_comparison(self) -> "Gate":
        bounded = self.comparison != "no-worse-than-production"
        if bounded == (self.threshold is None):
            raise ValueError(
                f"gate on {self.metric!r}: comparison={self.comparison} "
                + ("needs a threshold" if bounded else "takes no threshold, only a margin")
            )
        if bounded and self.judged_on == "paired":
            raise ValueError(
                f"gate on {self.metric!r}: judged_on=paired compares with production only"
            )
        return self


class GateVerdict(Record):
    """What one gate said."""

    gate: Gate
    verdict: Verdict
    value: float | None  # the number judged; None if the metric is missing
    reference: float | None  # the bound it was held against
    num: int | None  # examples behind the number
    reason: str  # the sentence a person reads


class Decision(Record):
    """All gates together; anything but "pass" blocks."""

    passed: bool
    verdicts: tuple[GateVerdict, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass; empty if it passed."""
        return tuple(item.reason for item in self.verdicts if item.verdict != "pass")
