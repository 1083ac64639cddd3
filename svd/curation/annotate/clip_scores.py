"""What CLIP says of a clip: how well its captions fit, how it looks, what is stamped on it.

Source: SVD, appendix C.4: text-image similarity and aesthetic score of the first, middle and last
frame. One image embedding serves the similarity, all heads and the search for near-duplicates.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float32

from svd.curation.annotate.heads import Head
from svd.curation.annotate.pictures import to_image
from svd.curation.annotate.scoring import Measured
from svd.curation.annotate.weights import Weights
from svd.types.annotation import Caption, Scorer

if TYPE_CHECKING:
    import torch

NAME = "clip"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subject:
    """What CLIP is shown of one clip."""

    pictures: Sequence[np.ndarray]  # first, middle and last frame, BGR
    captions: Sequence[Caption]  # all of them


@dataclass(frozen=True, slots=True)
class ClipScores:
    """Scores of one clip and the embedding they come from."""

    measured: Measured
    embedding: str | None  # mean over the frames, unit length, base64 of float16


@dataclass(frozen=True)
class ClipScorer:
    """Scores similarity, and what the heads read; the model loads at the first clip.

    Attributes:
        weights: A folder in open_clip's format.
        heads: At most one per purpose.
        device: Torch's name.
        batch_size: Pictures or captions through the network at once.
    """

    weights: Weights
    heads: tuple[Head, ...]
    device: str
    batch_size: int

    @cached_property
    def scorer(self) -> Scorer:
        """Name, version and settings; the version is the hash of the weights."""
        heads = {f"{head.published.purpose}_head": head.published.name for head in self.heads}
        return Scorer(
            name=NAME,
            version=self.weights.version,
            settings={"folder": self.weights.path.name, "frames": "first, middle, last", **heads},
        )

    def measure(self, subjects: Sequence[Subject]) -> list[ClipScores]:
        """Return the scores of each clip."""
        pictures = [picture for subject in subjects for picture in subject.pictures]
        texts = list({caption.text: 0 for one in subjects for caption in one.captions})
        if not pictures:
            return [self._without_frames() for _ in subjects]
        raw = self._embed_pictures(pictures)
        rows = dict(zip(texts, _unit(self._embed_texts(texts)), strict=True)) if texts else {}
        results: list[ClipScores] = []
        first = 0
        for subject in subjects:
            last = first + len(subject.pictures)
            results.append(self._score(raw[first:last], subject.captions, rows))
            first = last
        return results

    def _score(
        self,
        raw: Float32[np.ndarray, "n d"],
        captions: Sequence[Caption],
        rows: dict[str, Float32[np.ndarray, " d"]],
    ) -> ClipScores:
        if not len(raw):
            return self._without_frames()
        images = _unit(raw)
        scores: dict[str, float] = {}
        if captions:
            similarity = images @ np.stack([rows[caption.text] for caption in captions]).T
            scores["similarity"] = float(similarity.mean())
            scores["similarity_min"] = float(similarity.min())
            for caption, values in zip(captions, similarity.T, strict=True):
                scores[f"similarity_{caption.source.replace('-', '_')}"] = float(values.mean())
        for head in self.heads:
            values = head.score(raw)
            purpose = head.published.purpose
            # A watermark on one frame is a watermark; beauty is an average.
            scores[purpose] = float(values.mean() if purpose == "aesthetic" else values.max())
        mean = _unit(images.mean(axis=0, keepdims=True))[0]
        return ClipScores(Measured(scores=scores), encode_embedding(mean))

    def _without_frames(self) -> ClipScores:
        names = ("similarity", *(head.published.purpose for head in self.heads))
        return ClipScores(Measured(missing=dict.fromkeys(names, "no sampled frame")), None)

    @cached_property
    def _model(self) -> tuple[Any, Any, Any]:
        """The network, its preprocessing (PIL image -> tensor) and its tokenizer."""
        import open_clip

        name = f"local-dir:{self.weights.path}"
        network, _, preprocess = open_clip.create_model_and_transforms(name, device=self.device)
        return network.eval(), preprocess, open_clip.get_tokenizer(name)

    def _embed_pictures(self, pictures: Sequence[np.ndarray]) -> Float32[np.ndarray, "n d"]:
        import torch

        network, preprocess, _ = self._model
        with torch.inference_mode():
            parts = [
                network.encode_image(
                    torch.stack([preprocess(to_image(p)) for p in part]).to(self.device)
                )
                for part in _batches(pictures, self.batch_size)
            ]
        return _to_numpy(parts)

    def _embed_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        import torch

        network, _, tokenize = self._model
        with torch.inference_mode():
            parts = [
                network.encode_text(tokenize(list(part)).to(self.device))
                for part in _batches(texts, self.batch_size)
            ]
        return _to_numpy(parts)


def encode_embedding(embedding: Float32[np.ndarray, " d"]) -> str:
    """Return an embedding as base64 of float16, little-endian."""
    return base64.b64encode(embedding.astype("<f2").tobytes()).decode("ascii")


def decode_embedding(text: str) -> Float32[np.ndarray, " d"]:
    """Return what `encode_embedding` was given, to 11 bits."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)


def _unit(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


def _to_numpy(parts: "list[torch.Tensor]") -> Float32[np.ndarray, "n d"]:
    import torch

    return np.asarray(torch.cat(parts).float().cpu().numpy())
