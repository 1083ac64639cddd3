"""Verdicts: thresholds, near-duplicates, the high-quality tier and the split, for all clips."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from svd.config.curation import FilterConfig
from svd.curation.filter.split import assign_splits
from svd.curation.filter.thresholds import Bounds, reasons_against, resolve_bounds
from svd.types.annotation import Annotation, Reason, Tier, Verdict


def judge(
    rows: Sequence[Annotation], bounds: Mapping[str, Bounds], config: FilterConfig
) -> list[Verdict]:
    """Return a verdict on every clip, with every reason that applies, in the rows' order.

    Raises:
        ConfigError: A threshold of the high-quality tier names a score that no kept clip has.
    """
    reasons = {
        row.clip_id: reasons_against(row, bounds, missing_scores=config.missing_scores)
        for row in rows
    }
    if config.max_per_group is not None:
        reasons |= _surplus(rows, reasons, config.max_per_group)
    kept = [clip for clip, against in reasons.items() if not against]
    splits = assign_splits(rows, kept, config.split)
    short_of = _short_of([row for row in rows if not reasons[row.clip_id]], config)
    tiers: dict[str, Tier] = dict.fromkeys(kept, "base")
    tiers |= {clip: "high-quality" for clip, against in short_of.items() if not against}
    return [
        Verdict(
            clip_id=row.clip_id,
            group_id=row.group_id,
            kept=not reasons[row.clip_id],
            reasons=reasons[row.clip_id],
            split=splits.get(row.clip_id),
            tier=tiers.get(row.clip_id),
            short_of=short_of.get(row.clip_id, ()),
        )
        for row in rows
    ]


def _short_of(kept: Sequence[Annotation], config: FilterConfig) -> dict[str, tuple[Reason, ...]]:
    """Return for each kept clip what keeps it from the high-quality tier; {} without a tier.

    Shares are of the kept clips; a clip that lacks a score stays below.
    """
    if config.high_quality is None:
        return {}
    bounds = resolve_bounds(kept, config.high_quality.in_force)
    return {row.clip_id: reasons_against(row, bounds, missing_scores="drop") for row in kept}


def _surplus(
    rows: Sequence[Annotation], reasons: dict[str, tuple[Reason, ...]], max_per_group: int
) -> dict[str, tuple[Reason, ...]]:
    """Return the reasons of near-duplicates beyond the allowed number of good ones per group.

    The longest clips of a group stay.
    """
    groups: dict[str, list[Annotation]] = defaultdict(list)
    for row in rows:
        if not reasons[row.clip_id]:
            groups[row.group_id].append(row)
    surplus: dict[str, tuple[Reason, ...]] = {}
    for members in groups.values():
        members.sort(key=lambda row: (-row.num_frames, row.clip_id))
        for row in members[max_per_group:]:
            reason = Reason(
                score="near-duplicate",
                rule="near-duplicate",
                value=float(len(members)),
                bound=float(max_per_group),
                sentence=f"a near-duplicate of {members[0].clip_id}, which is kept",
            )
            surplus[row.clip_id] = (reason,)
    return surplus
