"""Moments of features on disk: each process keeps its own, and merging them is exact."""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from svd.evaluation.stats import RunningMoments
from svd.evaluation.tensor_store import TensorStore

_BATCH = 256  # vectors whose moments are taken at once


def stream_moments(vectors: Iterable[Float[Tensor, " d"]]) -> RunningMoments | None:
    """Return the moments of vectors that need not fit into memory together; None of none."""
    moments: RunningMoments | None = None
    batch: list[Tensor] = []

    def add() -> None:
        nonlocal moments
        part = RunningMoments.of(torch.stack(batch))
        moments = part if moments is None else moments.merged(part)
        batch.clear()

    for vector in vectors:
        batch.append(vector)
        if len(batch) == _BATCH:
            add()
    if batch:
        add()
    return moments


def merge_moments(parts: Sequence[RunningMoments]) -> RunningMoments:
    """Return the moments of all parts together, merged in their order."""
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(part)
    return merged


def load_moments(store: TensorStore, name: str, key: str) -> RunningMoments | None:
    """Return kept moments of exactly these vectors, or None."""
    stored = store.get(name, key)
    if stored is None:
        return None
    tensors = stored.tensors
    return RunningMoments(int(tensors["num"]), tensors["mean"], tensors["scatter"])


def save_moments(store: TensorStore, name: str, key: str, moments: RunningMoments) -> None:
    """Keep moments under a name; `key` says whose they are."""
    tensors = {
        "num": torch.tensor(moments.num),
        "mean": moments.mean,
        "scatter": moments.scatter,
    }
    store.put(name, key, tensors)


def key_of(clip_ids: Iterable[str]) -> str:
    """Return a key for the moments of the features of these clips in this order."""
    return hashlib.sha256("\n".join(clip_ids).encode()).hexdigest()
