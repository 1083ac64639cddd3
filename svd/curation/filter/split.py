"""Which kept clips are held out: whole groups of near-duplicates, by hash, never by order."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from svd.config.curation import SplitConfig
from svd.types.annotation import Annotation, SplitName


def assign_splits(
    annotations: Sequence[Annotation], kept: Sequence[str], config: SplitConfig
) -> dict[str, SplitName]:
    """Return the split of every kept clip.

    Clips that share a near-duplicate group lie in one split; with `whole_sources`, so do clips
    that share a source. A unit is held out if its hash lies below the share asked for, so adding
    clips does not move the others; then units are added in hash order until there are enough.

    Args:
        annotations: All clips: a chain of near-duplicates may pass through a dropped one.
        kept: clip_ids to assign.
        config: Shares and counts.
    """
    unit_of = _units(annotations, config)
    sizes = Counter(unit_of[clip] for clip in kept)
    in_order = sorted(sizes, key=lambda unit: (_position(unit), unit))
    heldout: set[str] = set()
    num_heldout = 0
    for unit in in_order:
        if _position(unit) >= config.heldout_share and num_heldout >= config.min_heldout_clips:
            break
        heldout.add(unit)
        num_heldout += sizes[unit]
    return {clip: "heldout" if unit_of[clip] in heldout else "train" for clip in sorted(kept)}


def _position(unit: str) -> float:
    """Return a unit's fixed place in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"split:{unit}".encode()).digest()[:8]) / 2**64


def _units(annotations: Sequence[Annotation], config: SplitConfig) -> Mapping[str, str]:
    """Return for each clip the name of what may not be divided."""
    if not config.whole_sources:
        return {row.clip_id: row.group_id for row in annotations}
    # Sources joined by a near-duplicate are one unit: walk the graph of sources and groups.
    sources_of: dict[str, set[str]] = defaultdict(set)
    groups_of: dict[str, set[str]] = defaultdict(set)
    for row in annotations:
        sources_of[row.group_id].add(row.video_id)
        groups_of[row.video_id].add(row.group_id)
    unit_of_source: dict[str, str] = {}
    for source in sorted(groups_of):
        if source in unit_of_source:
            continue
        reached, front = {source}, [source]
        while front:
            nearby = {near for group in groups_of[front.pop()] for near in sources_of[group]}
            front += sorted(nearby - reached)
            reached |= nearby
        unit_of_source |= dict.fromkeys(reached, source)
    return {row.clip_id: unit_of_source[row.video_id] for row in annotations}
