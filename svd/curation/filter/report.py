"""The dataset report: the paper's table 1 for these clips, histograms, counts by reason."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from svd.curation.filter.thresholds import Bounds
from svd.types.annotation import Annotation, Verdict
from svd.types.curation import Histogram, TableRow

_BINS = 40
_TAIL = 0.005  # share of clips at each end that may lie outside the drawn range


def table_row(name: str, rows: Sequence[Annotation]) -> TableRow:
    """Return a set of clips as a column of the paper's table 1."""
    num = len(rows)
    seconds = sum(row.duration_s for row in rows)
    videos = len({row.video_id for row in rows})
    return TableRow(
        name=name,
        num_clips=num,
        mean_clip_s=round(seconds / max(1, num), 3),
        total_h=round(seconds / 3600, 5),
        mean_num_frames=round(sum(row.num_frames for row in rows) / max(1, num), 2),
        mean_clips_per_video=round(num / max(1, videos), 3),
        has_motion_annotation=all("motion.dis_px" in row.scores for row in rows),
    )


def histogram(
    score: str, annotations: Sequence[Annotation], kept: frozenset[str], bounds: Bounds | None
) -> Histogram:
    """Return the distribution of a score over all clips and over the kept ones.

    The range leaves out the outermost clips at each end, which are counted in the end bins.
    """
    values = np.array([row.scores[score] for row in annotations if score in row.scores])
    of_kept = np.array(
        [row.scores[score] for row in annotations if score in row.scores and row.clip_id in kept]
    )
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    for bound in (bounds.low, bounds.high) if bounds is not None else ():
        if bound is not None:
            low, high = min(low, bound), max(high, bound)
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    counts, counts_kept = (
        np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0] for part in (values, of_kept)
    )
    return Histogram(
        score=score,
        edges=tuple(round(edge, 6) for edge in edges.tolist()),
        counts=tuple(counts.tolist()),
        counts_kept=tuple(counts_kept.tolist()),
        low=None if bounds is None else bounds.low,
        high=None if bounds is None else bounds.high,
        num_missing=len(annotations) - len(values),
    )


def count_reasons(verdicts: Sequence[Verdict]) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many clips each rule dropped, and how many it alone dropped."""
    every: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for verdict in verdicts:
        names = {reason.score for reason in verdict.reasons}
        every.update(names)
        if len(names) == 1:
            alone.update(names)
    return dict(sorted(every.items())), dict(sorted(alone.items()))


def scores_to_draw(
    annotations: Sequence[Annotation], bounds: Mapping[str, Bounds]
) -> tuple[str, ...]:
    """Return the names of all scores, thresholded ones first."""
    names = {name for row in annotations for name in row.scores}
    return tuple(sorted(names, key=lambda name: (name not in bounds, name)))
