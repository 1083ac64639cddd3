"""Motion score in, motion_bucket_id out: quantiles of the training clips."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from svd.errors import ConfigError
from svd.types.shard import NUM_MOTION_BUCKETS, MotionTable


def fit_motion_table(scores: Sequence[float], *, scorer: str) -> MotionTable:
    """Return the table whose buckets hold equal shares of these clips.

    Args:
        scores: Of the kept training clips, in any order.
        scorer: Name and version of the annotator, for the record.

    Raises:
        ConfigError: There is no score.
    """
    if not scores:
        raise ConfigError("no training clip has a motion score, so motion buckets have no scale")
    shares = np.arange(1, NUM_MOTION_BUCKETS) / NUM_MOTION_BUCKETS
    # Rounded, so that a last-bit difference of the interpolation between machines changes nothing.
    thresholds = np.round(np.quantile(np.asarray(scores, dtype=np.float64), shares), 9)
    return MotionTable(scorer=scorer, num_clips=len(scores), thresholds=tuple(thresholds.tolist()))


def motion_bucket(table: MotionTable, score: float) -> int:
    """Return the motion_bucket_id of a score, 0..255."""
    return bisect_right(table.thresholds, score)
