"""Feature vectors of videos, kept on disk: a network never sees the same video twice."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.evaluation.extractors.base import VideoExtractor
from svd.evaluation.samples import frames_sha256
from svd.evaluation.tensor_store import TensorStore
from svd.runtime.progress import track


class FeatureCache:
    """Vectors under the hash of the frames they are of, per network and way of preparing.

    The name of a file says all that its content depends on, so real clips keep their vectors from
    one model to the next and a killed run loses at most one video.
    """

    def __init__(self, folder: Path, extractor: VideoExtractor) -> None:
        """Open the cache of one extractor below a folder shared by all."""
        identity = f"{extractor.variant}\n{extractor.card.content_hash()}"
        self._store = TensorStore(folder / hashlib.sha256(identity.encode()).hexdigest()[:16])
        self._extractor = extractor

    def features(
        self, videos: Sequence[UInt8[Tensor, "t c H W"]], *, description: str
    ) -> Float[Tensor, "n d"]:
        """Return one vector a video, in order.

        Args:
            videos: Videos of one length.
            description: What the progress line says.
        """
        tracked = track(videos, total=len(videos), description=description, unit="videos")
        return torch.stack([self._vector(video) for video in tracked])

    def _vector(self, video: Tensor) -> Tensor:
        name = frames_sha256(video)
        stored = self._store.get(name, name)
        if stored is not None:
            return stored.tensors["features"]
        vector = self._extractor.extract(video.unsqueeze(0))[0]
        self._store.put(name, name, {"features": vector})
        return vector
