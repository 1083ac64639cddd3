"""Metrics of embeddings and class probabilities: CLIP-S and the inception score."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from svd.errors import ConfigError


def clip_similarity(
    embeds_a: Float[Tensor, "n d"], embeds_b: Float[Tensor, "n d"]
) -> Float[Tensor, " n"]:
    """Return the cosine of each pair of picture embeddings (CLIP-S of the multi-view tables)."""
    return functional.cosine_similarity(embeds_a.double(), embeds_b.double(), dim=1)


class InceptionScore(NamedTuple):
    """Mean over splits, and their standard deviation."""

    mean: float
    std: float


def inception_score(logits: Float[Tensor, "n k"], *, num_splits: int) -> InceptionScore:
    """Return the mean over splits of exp(mean KL(p(y|x) || p(y))).

    Args:
        logits: Of a classifier, one row a sample, in the order the samples were drawn.
        num_splits: Consecutive parts of equal size; 10 in the literature.

    Raises:
        ConfigError: Fewer samples than splits.

    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.
    """
    if logits.shape[0] < num_splits:
        raise ConfigError(f"an inception score over {num_splits} splits of {logits.shape[0]}")
    scores = []
    for part in logits.double().tensor_split(num_splits):
        log_p = part.log_softmax(dim=1)
        log_marginal = log_p.logsumexp(dim=0) - math.log(len(part))
        divergence = (log_p.exp() * (log_p - log_marginal)).sum(dim=1)
        scores.append(divergence.mean().exp())
    found = torch.stack(scores)
    return InceptionScore(float(found.mean()), float(found.std(correction=0)))
