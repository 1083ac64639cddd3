"""What is known of a synthetic video because our own code made it."""

from typing import Literal

from pydantic import Field

from svd.types.base import Record
from svd.types.video import Rational

CameraMotion = Literal["static", "horizontal", "vertical", "zoom-in", "zoom-out"]
DuplicateKind = Literal["reencoded", "scaled", "webm"]


class TrueCut(Record):
    """A shot boundary: hard at start_frame == stop_frame, else the frames between two shots."""

    kind: Literal["hard", "fade", "dissolve"]
    start_frame: int = Field(ge=0)
    stop_frame: int = Field(ge=0)


class TrueShot(Record):
    """Frames [start_frame, stop_frame) of one camera take, outside all transitions.

    Motion is that of the picture's content on the screen, in pixels of this video.
    """

    start_frame: int = Field(ge=0)
    stop_frame: int = Field(gt=0)
    picture: str  # photograph or painting that is filmed
    camera: CameraMotion
    dx: float  # pixels per frame; content moves right if positive
    dy: float  # pixels per frame; content moves down if positive
    zoom: float = Field(gt=0)  # factor per frame about the centre; > 1 magnifies
    object_dx: float  # of the moving object; 0 if there is none
    object_dy: float
    object_area_ratio: float = Field(ge=0, le=1)  # of the frame; 0 if there is no object
    mean_motion_px: float = Field(ge=0)  # per frame, over all pixels
    text_area_ratio: float = Field(ge=0, le=1)  # of the boxes around the burned-in lines


class VideoTruth(Record):
    """data/raw/truth/<video_id>.json."""

    video_id: str
    name: str  # e.g. "synthetic/003-fades"
    width: int
    height: int
    fps: Rational
    num_frames: int
    cuts: tuple[TrueCut, ...]
    shots: tuple[TrueShot, ...]
    duplicate_of: str | None  # video_id of the original
    duplicate_kind: DuplicateKind | None
