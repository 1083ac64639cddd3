"""First-frame retrieval: does a sampled video start at its own condition?"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional


class Retrieval(NamedTuple):
    """Answer per query.

    Attributes:
        hits: Whether the own candidate is strictly the nearest; a tie is a miss.
        ranks: 1-based rank of the own candidate, ties counted against it.
    """

    hits: Bool[Tensor, " n"]
    ranks: Int[Tensor, " n"]


def pixel_distances(
    queries: UInt8[Tensor, "n c H W"], candidates: UInt8[Tensor, "m c H W"], *, short_side: int
) -> Float[Tensor, "n m"]:
    """Return the mean squared pixel difference of every query to every candidate, in 0..1.

    Args:
        queries: Pictures that ask, e.g. frame 0 of each sample.
        candidates: Pictures to find.
        short_side: Both are first shrunk (area average) so that their shorter side has this many
            pixels; larger pictures only, smaller ones stay. Shrinking keeps the
            picture and drops the noise, whose error would swamp the answer.
    """
    return (
        torch.cdist(
            _shrunk(queries, short_side),
            _shrunk(candidates, short_side),
            compute_mode="donot_use_mm_for_euclid_dist",
        ).square()
        / _shrunk(queries[:1], short_side).shape[1]
    )


def retrieve(distances: Float[Tensor, "n n"]) -> Retrieval:
    """Return, for each row, whether and how well the diagonal entry is the smallest."""
    own = distances.diagonal().unsqueeze(1)
    ranks = (distances <= own).sum(dim=1)
    return Retrieval(hits=ranks == 1, ranks=ranks)


def _shrunk(pictures: Tensor, short_side: int) -> Tensor:
    values = pictures.double() / 255
    height, width = pictures.shape[-2:]
    if min(height, width) > short_side:
        scale = short_side / min(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        values = functional.interpolate(values, size=size, mode="area")
    return values.flatten(start_dim=1)
