"""Motion buckets: do samples move more where more motion is asked for?"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor

from svd.evaluation.finetunes.movement import motion_px
from svd.evaluation.measures.base import Measured, RunFacts

NAME = "rank correlation of motion bucket and measured motion"
Videos = Sequence[UInt8[Tensor, "t H W 3"]]


def measure_buckets(facts: RunFacts, videos: Mapping[int, Videos], *, fps: float) -> Measured:
    """Return the mean rank correlation over pictures and seeds, and each bucket's mean motion.

    Args:
        facts: Of the run.
        videos: Samples by bucket, of the same pictures and seeds in the same order.
        fps: Of the samples.
    """
    buckets = sorted(videos)
    motion = np.array([[motion_px(video, fps=fps) for video in videos[b]] for b in buckets])
    rank = torch.tensor([rank_correlation(buckets, column) for column in motion.T])
    records = [
        facts.mean_record(
            NAME,
            rank,
            variant=f"spearman/dis/{'-'.join(map(str, buckets))}",
            higher_is_better=True,
            note="mean over pictures and seeds; 0 is what a model that ignores the bucket gets",
        )
    ]
    records += [
        facts.mean_record(
            f"motion in bucket {bucket}",
            torch.from_numpy(row),
            variant="dis/128px-per-half-second",
            higher_is_better=True,
            control_of=NAME,
        )
        for bucket, row in zip(buckets, motion, strict=True)
    ]
    return Measured(tuple(records), {NAME: rank})


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; 0 where one of the two does not vary."""
    one, other = (_ranks(np.array(values, dtype=np.float64)) for values in (first, second))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: Float64[ndarray, " n"]) -> Float64[ndarray, " n"]:
    """Return each value's place in the order; equal values share the mean of theirs."""
    below = (values[:, None] > values[None, :]).sum(axis=1)
    equal = (values[:, None] == values[None, :]).sum(axis=1)
    ranks: Float64[ndarray, " n"] = below + (equal - 1) / 2
    return ranks
