"""How clips become shards (stage encode), and how examples are drawn from shards."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.config.model import ImageEncoderConfig
from svd.types.annotation import CaptionSource
from svd.types.video import Rational


class PictureSize(Section):
    """Height and width of the pictures that are encoded, in pixels."""

    height: int = Field(ge=8, multiple_of=8)
    width: int = Field(ge=8, multiple_of=8)


class EncodedSize(PictureSize):
    """A size that clips are encoded at."""

    # Sizes that share this name are alternatives: a clip is encoded at the one nearest to its own
    # aspect ratio. None: every clip is encoded at this size.
    bucket: str | None = Field(default=None, min_length=1)


class EncodeConfig(Section):
    """Stage encode: which frames of a clip are taken, and how shards are cut."""

    fps: Rational  # frames per second to take; a clip of a lower rate keeps its own
    sizes: tuple[EncodedSize, ...] = Field(min_length=1)
    # Frames between two possible first frames of a window. The first frames are stored as
    # pictures, because the noise of cond_aug is added to pixels in every training step anew.
    block_frames: int = Field(ge=1, le=64)
    max_frames: int = Field(ge=1)  # frames taken of one clip, from its start; bounds the outliers
    examples_per_shard: int = Field(ge=1)  # on average: clips fall into shards by their hash
    frames_at_once: int = Field(ge=1)  # frames in one pass of the encoders; memory only
    num_workers: int = Field(ge=1)  # shards made at once; the bytes do not depend on it
    device: Literal["cpu", "cuda"] = "cpu"  # of the encoders
    image_encoder: ImageEncoderConfig  # its embedding of a first frame is the I2V context
    # Score of the annotations that motion_bucket_id is a quantile of, "<scorer>.<quantity>".
    motion_score: str = Field(min_length=1)

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.fps <= 0:
            raise ValueError(f"fps={self.fps} must be above 0")
        if len({(size.height, size.width) for size in self.sizes}) != len(self.sizes):
            raise ValueError("sizes names the same height and width twice")
        return self


class StreamConfig(Section):
    """How a training phase draws examples; each is a window of consecutive stored frames."""

    height: int = Field(ge=8, multiple_of=8)  # pixels: which of the encoded sizes
    width: int = Field(ge=8, multiple_of=8)  # pixels
    # Further sizes: aspect-ratio buckets. A batch has one size; sizes take turns by their clips.
    buckets: tuple[PictureSize, ...] = ()
    num_frames: int = Field(ge=1)  # per example; 1 trains on pictures
    batch_size: int = Field(ge=1)  # clips per optimizer step, over all ranks
    # Training clips: all, or those that passed filter's second bar (`filter.high_quality`).
    # Held-out clips are always all of them, so that losses of phases compare.
    tier: Literal["all", "high-quality"] = "all"
    # Stored frames from one frame to the next, one drawn per example among those the clip is long
    # enough for; the example's fps falls accordingly.
    frame_strides: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1,), min_length=1)
    image_batch_fraction: float = Field(default=0.0, ge=0, le=1)  # share of batches of 1 frame
    # Weight of each caption source in the draw; sources not named are not used. Empty: no text.
    caption_weights: dict[CaptionSource, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict
    )
    # Shards that examples are mixed over. All of a smaller set; in a larger one it bounds how many
    # shard indexes are held in memory.
    shards_mixed: int = Field(default=64, ge=1)
    # Unreadable examples before training stops. None: 100, or one in a hundred where that is more,
    # so that a large data set may lose a few whole shards.
    max_quarantined: int | None = Field(default=None, ge=0)
    read_threads: int = Field(default=4, ge=1)  # per rank
    prefetch_batches: int = Field(default=4, ge=1)  # read ahead, per rank

    @property
    def sizes(self) -> tuple[PictureSize, ...]:
        """All sizes of the stream, the main one first."""
        return (PictureSize(height=self.height, width=self.width), *self.buckets)

    def at(self, size: PictureSize) -> "StreamConfig":
        """Return the part of the stream that has one size."""
        changes = {"height": size.height, "width": size.width, "buckets": ()}
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        if len({(size.height, size.width) for size in self.sizes}) != len(self.sizes):
            raise ValueError("buckets names a height and width twice")
        return self

    @property
    def min_span(self) -> int:
        """Stored frames that the shortest window covers."""
        return (self.num_frames - 1) * min(self.frame_strides) + 1
