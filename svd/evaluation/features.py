"""Feature vectors of videos, kept on disk: a network never sees the same video twice."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from svd.evaluation.extractors.base import VideoExtractor
from svd.evaluation.samples import frames_sha256
from svd.runtime.progress import track

logger = logging.getLogger(__name__)


class FeatureCache:
    """Vectors under the hash of the frames they are of, per network and way of preparing.

    The name of a file says all that its content depends on, so real clips keep their vectors from
    one model to the next and a killed run loses at most one video.
    """

    def __init__(self, folder: Path, extractor: VideoExtractor) -> None:
        """Open the cache of one extractor below a folder shared by all."""
        identity = f"{extractor.variant}\n{extractor.card.content_hash()}"
        self._folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
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
        path = self._folder / f"{frames_sha256(video)}.safetensors"
        vector = self._read(path)
        if vector is None:
            vector = self._extractor.extract(video.unsqueeze(0))[0].contiguous()
            partial = path.with_name(path.name + ".partial")
            save_file({"features": vector}, partial)
            partial.replace(path)
        return vector

    def _read(self, path: Path) -> Tensor | None:
        if not path.is_file():
            return None
        try:
            return load_file(path)["features"]
        except (SafetensorError, KeyError):
            logger.warning("cached features are damaged", extra={"path": str(path)})
            return None
