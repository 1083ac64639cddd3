"""Which checkpoints are kept: the last few, the best few, and every n-th."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from svd.config.training import CheckpointConfig

Reason = Literal["last", "best", "every"]


class Saved(NamedTuple):
    """What the policy looks at."""

    step: int
    heldout_loss: float | None  # None where the step did not validate


def reasons_to_keep(
    saved: Iterable[Saved], policy: CheckpointConfig
) -> Mapping[int, tuple[Reason, ...]]:
    """Return, for each step that is kept, why; steps that are not in it may go.

    "best" are the lowest held-out losses; of equal ones the earlier.
    """
    saved = sorted(saved, key=lambda one: one.step)
    last = {one.step for one in saved[-policy.keep_last :]}
    measured = [(one.heldout_loss, one.step) for one in saved if one.heldout_loss is not None]
    best = {step for _, step in sorted(measured)[: policy.keep_best]}
    every = policy.keep_every_steps
    found: dict[int, tuple[Reason, ...]] = {}
    for step, _ in saved:
        reasons: list[Reason] = []
        if step in last:
            reasons.append("last")
        if step in best:
            reasons.append("best")
        if every is not None and step % every == 0:
            reasons.append("every")
        if reasons:
            found[step] = tuple(reasons)
    return found


def outlives_phase(reasons: tuple[Reason, ...]) -> bool:
    """Say whether a checkpoint stays once its phase is finished: one that is only recent goes."""
    return reasons != ("last",)
