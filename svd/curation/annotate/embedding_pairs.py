"""Near-duplicates that hashes miss, found by the cosine of CLIP embeddings.

The search is exact: all pairs, block by block, as matrix products. A hundred thousand clips take
minutes on a CPU, ten million on one GPU; no index has to be built, tuned or trusted.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float32

_BLOCK = 4096  # rows compared with as many at once


def similar_pairs(
    embeddings: Mapping[str, Float32[np.ndarray, " d"]], *, min_similarity: float
) -> Iterator[tuple[str, str]]:
    """Yield the pairs of clip_ids whose embeddings are this close, each once.

    Args:
        embeddings: By clip_id, of unit length.
        min_similarity: Cosine.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = sorted(embeddings)
    if not names:
        return
    rows = torch.from_numpy(np.stack([embeddings[name] for name in names])).to(device)
    for first in range(0, len(names), _BLOCK):
        for second in range(first, len(names), _BLOCK):
            products = rows[first : first + _BLOCK] @ rows[second : second + _BLOCK].T
            near = torch.nonzero(products >= min_similarity).cpu() + torch.tensor([first, second])
            for left, right in near.tolist():
                if left < right:
                    yield names[left], names[right]
