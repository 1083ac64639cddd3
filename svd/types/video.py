"""From a raw file to a clip: what is known of a video at each step."""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from svd.types.base import Record


def _to_fraction(value: object) -> object:
    return Fraction(value) if isinstance(value, str | int) else value


# An exact rational, written "24000/1001"; floats are refused, because times must be exact.
Rational = Annotated[
    Fraction,
    BeforeValidator(_to_fraction),
    PlainSerializer(lambda value: f"{value.numerator}/{value.denominator}", return_type=str),
]


class VideoProbe(Record):
    """What demuxing alone says of a video stream.

    Sizes are those of the displayed picture, after rotation.
    """

    codec: str
    width: int = Field(gt=0)  # pixels, displayed
    height: int = Field(gt=0)  # pixels, displayed
    rotation: Literal[0, 90, 180, 270] = 0  # degrees clockwise to apply to the decoded picture
    fps: Rational  # mean rate over the whole stream
    time_base: Rational  # seconds per pts tick
    num_frames: int = Field(gt=0)  # packets that show a picture
    num_keyframes: int = Field(ge=0)
    start_pts: int  # first presented frame, in ticks
    duration_s: float = Field(ge=0)
    is_vfr: bool  # frame durations differ
    has_audio: bool
    pixel_format: str


class RawVideo(Record):
    """One source video, named by its content."""

    video_id: str  # sha256 of the bytes, hex
    uri: str  # where the bytes lie: "videos/<sha256>.mp4" (below data/raw), or an s3:// address
    origin: str  # where they came from: file name, s3 address, or package member
    licence: str  # SPDX identifier or the words of the source
    size_bytes: int = Field(gt=0)
    probe: VideoProbe


class RejectedFile(Record):
    """A file that ingest refused, with its reason; nothing vanishes."""

    origin: str
    sha256: str | None  # None if the bytes could not be read
    size_bytes: int | None
    reason: str  # machine-readable class, e.g. "not-a-video", "empty-file", "no-video-stream"
    detail: str  # the sentence a person reads


class WithdrawnVideo(Record):
    """A source video that must not be used any more: a line of withdrawn.jsonl, kept in git."""

    video_id: str = Field(pattern=r"^[0-9a-f]{64}$")  # sha256 of its bytes
    withdrawn_on: str  # ISO 8601 date
    by: str  # who answers for the entry
    reason: str  # in their words; no personal data, the file is public to all who clone


class Cut(Record):
    """A shot boundary.

    A hard cut has start_frame == stop_frame == the first frame of the new shot. A fade or
    dissolve is the half-open range of frames that belong to no shot.
    """

    video_id: str
    start_frame: int = Field(ge=0)
    stop_frame: int = Field(ge=0)
    kind: Literal["hard", "fade", "dissolve"]
    score: float  # strength in the units of the detector that found it
    detector: str  # name and version


class ClipSpan(Record):
    """A planned clip: whole frames [start_frame, stop_frame) of one video, with exact times."""

    video_id: str
    start_frame: int = Field(ge=0)
    stop_frame: int = Field(gt=0)
    start_pts: int
    stop_pts: int  # pts at which the first frame after the clip would be shown
    time_base: Rational
    method: Literal["copy", "reencode"]


class Clip(Record):
    """An extracted clip."""

    clip_id: str  # sha1-like short name derived from video_id and span; also the file's stem
    span: ClipSpan
    uri: str  # "clips/<clip_id>.mp4" below data/clips
    sha256: str
    width: int
    height: int
    fps: Rational
    num_frames: int = Field(gt=0)
    duration_s: float


class DroppedSpan(Record):
    """Frames of a shot that became no clip; nothing vanishes."""

    video_id: str
    start_frame: int = Field(ge=0)
    stop_frame: int = Field(gt=0)
    reason: str  # "shot-too-short", "between-keyframes"
