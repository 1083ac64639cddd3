"""The inception score of generated videos, by a classifier that the user brought.

For UCF-101 the literature takes a C3D trained on its classes. No package carries one, so the number
exists only where a user's card names a file, and it always bears that network's name.
"""

from collections.abc import Sequence

import torch

from svd.evaluation.extractors.base import VideoExtractor, metric_name
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.embedding import inception_score
from svd.evaluation.protocols.base import MeasuredClip
from svd.types.artifact import MetricRecord

NUM_SPLITS = 10  # StyleGAN-V's isv2048_ucf; the spread over splits is what papers print
CLASSES = "classes"  # the feature that holds a clip's logits


def inception_record(
    classifier: VideoExtractor, clips: Sequence[MeasuredClip], facts: RunFacts, *, where: str
) -> MetricRecord:
    """Return the score over all clips in the plan's order; its note has the spread of the splits.

    Fewer clips than ten splits of two are scored in fewer splits, and the variant says so.
    """
    logits = torch.stack([one.features[CLASSES] for one in clips])
    num_splits = max(1, min(NUM_SPLITS, len(clips) // 2))
    found = inception_score(logits, num_splits=num_splits)
    return facts.record(
        metric_name("IS", "IS", classifier.card),
        found.mean,
        num=len(clips),
        variant=f"inception-score/{classifier.variant}/from-{where}/{num_splits}-splits",
        higher_is_better=True,
        card=classifier.card,
        note=f"mean over {num_splits} splits, whose standard deviation is {found.std:.3g}",
    )
