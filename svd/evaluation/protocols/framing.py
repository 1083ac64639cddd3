"""How a protocol makes frames fit: each way has a name, which goes into the variant id."""

from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from svd.evaluation.geometry import as_frames, cover, crop, stretch

Frames = UInt8[Tensor, "t c H W"]


class Native:
    """Frames as they are."""

    name = "native"

    def __call__(self, frames: Frames, sampled: tuple[int, int] | None) -> Frames:  # noqa: ARG002
        """Return the frames."""
        return frames


class Square(NamedTuple):
    """Shorter side scaled to a side, then the central square."""

    side: int
    antialias: bool

    @property
    def name(self) -> str:
        """Part of a variant id."""
        return f"crop{self.side}-{'aa' if self.antialias else 'noaa'}"

    def __call__(self, frames: Frames, sampled: tuple[int, int] | None) -> Frames:  # noqa: ARG002
        """Return the squares."""
        return as_frames(cover(frames.float(), self.side, self.side, antialias=self.antialias))


class AsSampled(NamedTuple):
    """Scaled to cover what the model samples, then cropped; a default where nothing is sampled."""

    height: int
    width: int

    @property
    def name(self) -> str:
        """Part of a variant id."""
        return "crop-as-sampled-aa"

    def __call__(self, frames: Frames, sampled: tuple[int, int] | None) -> Frames:
        """Return the frames at the size of the samples."""
        height, width = sampled or (self.height, self.width)
        return as_frames(cover(frames.float(), height, width, antialias=True))


class ShrinkThenCrop(NamedTuple):
    """Stretched to one size with antialiasing, then cropped to a narrower one.

    The paper's way from its samples to UCF-101's 240x320. Samples of another shape than the
    paper's 320x576 are scaled to cover instead.
    """

    source: tuple[int, int]
    height: int
    width: int
    crop_width: int

    @property
    def name(self) -> str:
        """Part of a variant id."""
        return f"{self.width}x{self.height}-aa-crop{self.crop_width}"

    def __call__(self, frames: Frames, sampled: tuple[int, int] | None) -> Frames:  # noqa: ARG002
        """Return the frames."""
        pictures = frames.float()
        if tuple(frames.shape[-2:]) != self.source:
            return as_frames(cover(pictures, self.height, self.crop_width, antialias=True))
        shrunk = stretch(pictures, self.height, self.width, antialias=True)
        return as_frames(crop(shrunk, self.height, self.crop_width))


Framing = Native | Square | AsSampled | ShrinkThenCrop
