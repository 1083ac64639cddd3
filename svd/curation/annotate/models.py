"""All networks of a recipe in one process: captions first, then CLIP, which reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from svd.config.curation import ModelsConfig
from svd.curation.annotate import clip_scores, craft
from svd.curation.annotate.captioners import Captioners
from svd.curation.annotate.clip_scores import ClipScorer, Subject
from svd.curation.annotate.craft import CraftScorer
from svd.curation.annotate.heads import PUBLISHED, load_head
from svd.curation.annotate.scoring import ClipView, Measured
from svd.curation.annotate.weights import ModelWeights
from svd.types.annotation import Caption, Scorer


@dataclass(frozen=True, slots=True)
class Said:
    """What the networks say of one clip."""

    measured: Measured  # full names
    captions: tuple[Caption, ...]
    embedding: str | None


class Models:
    """The networks that look at every clip; each loads when it is first needed."""

    def __init__(self, config: ModelsConfig, weights: ModelWeights) -> None:
        import torch

        torch.set_num_threads(1)  # the other workers have the other cores
        device = config.device
        self._captioners = Captioners(config.captions, weights, device)
        self._craft: CraftScorer | None = None
        self._clip: ClipScorer | None = None
        if config.craft is not None and weights.craft is not None:
            self._craft = CraftScorer(config.craft, weights.craft, device)
        if weights.clip is not None:
            heads = tuple(load_head(PUBLISHED[name], file.path) for name, file in weights.heads)
            self._clip = ClipScorer(weights.clip, heads, device, config.pictures_per_batch)

    @property
    def scorers(self) -> dict[str, Scorer]:
        """Who scores, by name; captions carry their own."""
        scorers = [one.scorer for one in (self._craft, self._clip) if one is not None]
        return {scorer.name: scorer for scorer in scorers}

    def look(self, views: Sequence[ClipView], known: Sequence[Sequence[Caption]]) -> list[Said]:
        """Return what is said of each clip.

        Args:
            views: The clips.
            known: Captions that each clip has already; CLIP reads them too.
        """
        described = self._captioners.describe([view.pictures for view in views])
        added = [tuple(one.captions.values()) for one in described]
        scores: list[dict[str, float]] = [{} for _ in views]
        missing = [dict(one.missing) for one in described]
        embeddings: list[str | None] = [None for _ in views]
        if self._craft is not None:
            areas = self._craft.measure([view.large_pictures() for view in views])
            for index, area in enumerate(areas):
                _take(area.named(craft.NAME), scores[index], missing[index])
        if self._clip is not None:
            subjects = [
                Subject(view.first_middle_last(), (*old, *new))
                for view, old, new in zip(views, known, added, strict=True)
            ]
            for index, found in enumerate(self._clip.measure(subjects)):
                _take(found.measured.named(clip_scores.NAME), scores[index], missing[index])
                embeddings[index] = found.embedding
        return [
            Said(Measured(scores=s, missing=m), captions, embedding)
            for s, m, captions, embedding in zip(scores, missing, added, embeddings, strict=True)
        ]


def _take(measured: Measured, scores: dict[str, float], missing: dict[str, str]) -> None:
    scores |= measured.scores
    missing |= measured.missing
