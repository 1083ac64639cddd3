"""What the encode stage leaves: tar shards, an index beside each, and the manifest above them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.types.annotation import Caption, SplitName, Tier
from svd.types.base import Record
from svd.types.orbit import CameraPose
from svd.types.video import Rational

NUM_MOTION_BUCKETS = 256  # motion_bucket_id lies in 0..255


class MemberEntry(Record):
    """Where the bytes of one tar member lie, and what they must hash to."""

    offset: int = Field(ge=0)  # of the first content byte, from the start of the tar
    size: int = Field(ge=0)  # bytes
    sha256: str


class ExampleEntry(Record):
    """One example of a shard: the members that share its key."""

    key: str  # clip_id; the stem of its members' names
    num_frames: int = Field(gt=0)
    members: dict[str, MemberEntry]  # extension, e.g. "moments.0003.npy" -> place


class ShardIndex(Record):
    """shards/<sha256>.index.json: what lies where in the tar of the same stem.

    Examples are ordered by falling num_frames, so those long enough for a window are a prefix.
    """

    examples: tuple[ExampleEntry, ...]


class LengthCount(Record):
    """How many examples of a shard have exactly this many frames."""

    num_frames: int = Field(gt=0)
    num_examples: int = Field(gt=0)


class ShardInfo(Record):
    """One shard, named by its content."""

    uri: str  # "shards/<sha256>.tar", below the manifest's folder
    sha256: str
    size_bytes: int = Field(gt=0)
    index_uri: str  # "shards/<sha256>.index.json"
    index_sha256: str
    split: SplitName
    tier: Tier = "base"  # of all its clips
    height: int = Field(gt=0)  # pixels
    width: int = Field(gt=0)  # pixels
    lengths: tuple[LengthCount, ...]  # longest first

    @property
    def num_examples(self) -> int:
        """Examples of any length."""
        return sum(entry.num_examples for entry in self.lengths)

    @property
    def num_frames(self) -> int:
        """Frames of all examples together."""
        return sum(entry.num_examples * entry.num_frames for entry in self.lengths)

    def num_at_least(self, num_frames: int) -> int:
        """Return how many examples have this many frames or more; they come first in the tar."""
        return sum(e.num_examples for e in self.lengths if e.num_frames >= num_frames)


class MotionTable(Record):
    """Which motion score falls into which of 256 buckets: quantiles of the training clips.

    The paper never says how a motion score becomes an id. Ours: bucket = number of thresholds
    that are <= score, the thresholds being the 1/256 .. 255/256 quantiles of the kept training
    clips. So id 127 means "as much motion as the median training clip".
    """

    version: Literal["quantile-1"] = "quantile-1"
    scorer: str  # name and version of the annotator whose unit the scores are in
    num_clips: int = Field(ge=1)  # that the quantiles were taken over
    thresholds: tuple[float, ...] = Field(
        min_length=NUM_MOTION_BUCKETS - 1, max_length=NUM_MOTION_BUCKETS - 1
    )

    @model_validator(mode="after")
    def _thresholds_rise(self) -> Self:
        if any(b < a for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise ValueError("thresholds fall somewhere; they must rise or stay")
        return self


class EncoderIdentity(Record):
    """Which network made the stored numbers."""

    role: Literal["autoencoder", "image-encoder"]
    name: str  # e.g. "open_clip ViT-H-14 laion2b_s32b_b79k", or "tiny seeded ViT"
    sha256: str  # of its weights, or of the section that seeds them
    config: dict[str, object]  # the config section that rebuilds it


class DroppedClip(Record):
    """A kept clip that could not be encoded, with its reason; nothing vanishes."""

    clip_id: str
    reason: str  # machine-readable class, e.g. "truncated"
    detail: str


class ShardManifest(Record):
    """data/latents/manifest.json: every shard with its hash, and how its numbers were made.

    Its content_hash() names the dataset.
    """

    format: Literal["svd-latents-1"] = "svd-latents-1"
    shards: tuple[ShardInfo, ...]
    fps: Rational  # frames per second asked for; a clip of a lower rate keeps its own
    block_frames: int = Field(gt=0)  # frames per block; a window starts where a block does
    latent_channels: int = Field(gt=0)
    latent_downscale: int = Field(gt=0)  # pixels per latent cell, along each side
    latent_scale: float = Field(gt=0)  # the diffused latents are this times the stored ones
    embed_dim: int = Field(gt=0)  # of an image embedding
    encoders: tuple[EncoderIdentity, ...]
    motion_table: MotionTable
    dropped: tuple[DroppedClip, ...] = ()

    def select(self, split: SplitName, *, height: int, width: int) -> tuple[ShardInfo, ...]:
        """Return the shards of a split and a picture size, in the manifest's order."""
        return tuple(
            shard
            for shard in self.shards
            if shard.split == split and (shard.height, shard.width) == (height, width)
        )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The (height, width) that clips were encoded at, in pixels."""
        return tuple(sorted({(shard.height, shard.width) for shard in self.shards}))


class ExampleMeta(Record):
    """`<clip_id>.json` in a shard: all of an example that is not a tensor."""

    clip_id: str
    video_id: str
    clip_sha256: str
    num_frames: int = Field(gt=0)
    fps: Rational  # true rate of the stored frames
    captions: tuple[Caption, ...]
    motion_score: float = Field(ge=0)
    motion_bucket_id: int = Field(ge=0, lt=NUM_MOTION_BUCKETS)
    poses: tuple[CameraPose, ...] = ()  # of every frame of an orbit; empty where none is known


class StreamPosition(Record):
    """Where a stream is: all of its state is how many examples it has drawn, over all ranks."""

    examples_drawn: int = Field(default=0, ge=0)

    def advance(self, num_examples: int) -> "StreamPosition":
        """Return the position after drawing so many more."""
        return StreamPosition(examples_drawn=self.examples_drawn + num_examples)
