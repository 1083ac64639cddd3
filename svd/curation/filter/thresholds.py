"""From scores to reasons: every bound that a clip breaks, by value or by quantile."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from svd.config.curation import Threshold
from svd.errors import ConfigError
from svd.types.annotation import Annotation, Reason


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values in force for one score: quantiles resolved, the stricter of two bounds taken."""

    low: float | None
    high: float | None


def resolve_bounds(
    annotations: Sequence[Annotation], thresholds: Mapping[str, Threshold]
) -> dict[str, Bounds]:
    """Return the bounds in force for each thresholded score.

    A quantile is taken over all clips that have the score: "drop_lowest: 0.25" drops a quarter of
    them, whatever other thresholds do (SVD, section 3.3 and appendix E.2.2).

    Raises:
        ConfigError: No clip has the score: its name is wrong, or its annotator did not run.
    """
    known = sorted({name for row in annotations for name in row.scores})
    bounds: dict[str, Bounds] = {}
    for name, threshold in sorted(thresholds.items()):
        values = np.array([row.scores[name] for row in annotations if name in row.scores])
        if annotations and not len(values):
            raise ConfigError(
                f"filter: a threshold is set on {name}, which no clip has; "
                f"clips have: {', '.join(known)}"
            )
        bounds[name] = _resolve(threshold, values)
    return bounds


def _resolve(threshold: Threshold, values: np.ndarray) -> Bounds:
    if not len(values):
        return join_bounds(threshold, by_share=Bounds(None, None))
    low, high = threshold.drop_lowest, threshold.drop_highest
    by_share = Bounds(
        low=None if low is None else _value_at(np.sort(values), low),
        high=None if high is None else -_value_at(np.sort(-values), high),
    )
    return join_bounds(threshold, by_share=by_share)


def join_bounds(threshold: Threshold, *, by_share: Bounds) -> Bounds:
    """Return the stricter of a threshold's values and the bounds that its shares come to."""
    lows = [bound for bound in (threshold.min, by_share.low) if bound is not None]
    highs = [bound for bound in (threshold.max, by_share.high) if bound is not None]
    return Bounds(low=max(lows, default=None), high=min(highs, default=None))


def _value_at(ascending: np.ndarray, share: float) -> float:
    """Return the bound below which this share of the values lies."""
    return float(ascending[place_of(share, len(ascending))])


def place_of(share: float, num: int) -> int:
    """Return the place, in ascending order, of the first of `num` clips that a share spares."""
    return math.floor(share * num)


def reasons_against(
    annotation: Annotation,
    bounds: Mapping[str, Bounds],
    *,
    missing_scores: Literal["drop", "keep"],
) -> tuple[Reason, ...]:
    """Return every bound that a clip breaks, by name of the score."""
    reasons: list[Reason] = []
    for name, bound in sorted(bounds.items()):
        value = annotation.scores.get(name)
        if value is None:
            if missing_scores == "drop":
                reasons.append(_not_measured(annotation, name))
        elif bound.low is not None and value < bound.low:
            reasons.append(_broken(name, value, bound.low, is_low=True))
        elif bound.high is not None and value > bound.high:
            reasons.append(_broken(name, value, bound.high, is_low=False))
    return tuple(reasons)


def _broken(name: str, value: float, bound: float, *, is_low: bool) -> Reason:
    side = "below" if is_low else "above"
    return Reason(
        score=name,
        rule="below" if is_low else "above",
        value=value,
        bound=bound,
        sentence=f"{name} is {value:.4g}, {side} {bound:.4g}",
    )


def _not_measured(annotation: Annotation, name: str) -> Reason:
    why = annotation.missing.get(name, "its annotator did not run")
    return Reason(
        score=name,
        rule="not-measured",
        value=None,
        bound=None,
        sentence=f"{name} was not measured: {why}",
    )
