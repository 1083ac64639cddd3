"""A picture network as a network of videos: it sees the frame in the middle."""

from jaxtyping import Float, UInt8
from torch import Tensor

from svd.evaluation.extractors.base import ExtractorCard, PictureEmbedder


class MiddleFrame:
    """Videos to the vector of one frame each.

    One frame and not all: the frames of a video are much alike, and a distance of sets is one of
    independent pictures.
    """

    def __init__(self, embedder: PictureEmbedder) -> None:
        self.embedder = embedder

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return self.embedder.card

    @property
    def variant(self) -> str:
        """Part of a metric's variant id."""
        return f"{self.embedder.variant}/middle-frame"

    def extract(self, frames: UInt8[Tensor, "b t c H W"]) -> Float[Tensor, "b d"]:
        """Return the vector of frame t // 2 of each video."""
        return self.embedder.embed(frames[:, frames.shape[1] // 2])
