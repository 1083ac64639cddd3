"""What the camera does in a clip: its class, the numbers behind it, and how well it is found."""

from typing import Final, Literal, get_args

from pydantic import Field

from svd.types.base import Record

CameraClass = Literal["static", "horizontal", "zoom", "rotation", "other"]
CAMERA_CLASSES: Final[tuple[CameraClass, ...]] = get_args(CameraClass)

# Each adapter is trained on the clips of one class. Source: SVD paper, section 4.3.1.
AdapterName = Literal["horizontal", "zoom", "static"]
ADAPTERS: Final[tuple[AdapterName, ...]] = get_args(AdapterName)


class CameraReading(Record):
    """Motion of the picture in half a second, in px of a picture whose shorter side is 128.

    Signed means over the clip's pairs of frames; `zoom` and `rotation` are the shifts that they
    cause at the mean distance from the centre.
    """

    shift_x: float  # > 0: the content moves right, so the camera pans left
    shift_y: float  # > 0: downwards
    zoom: float  # > 0: the content grows
    rotation: float  # > 0: clockwise on the screen
    speed: float = Field(ge=0)  # mean over pairs of all four together, whatever their signs
    explained: float = Field(ge=0, le=1)  # share of the squared flow that the camera explains
    num_pairs: int = Field(ge=1)


class CameraLabel(Record):
    """One line of data/camera-motion/labels.jsonl."""

    clip_id: str
    camera: CameraClass
    reading: CameraReading | None  # None: fewer than two sampled frames, hence "other"


class Confusion(Record):
    """How clips whose camera is known were classified."""

    counts: dict[CameraClass, dict[CameraClass, int]]  # true class -> class found -> clips

    @property
    def num_clips(self) -> int:
        """Clips with a known camera."""
        return sum(sum(row.values()) for row in self.counts.values())

    @property
    def accuracy(self) -> float:
        """Share of them whose class was found; 0 if there are none."""
        right = sum(row.get(true, 0) for true, row in self.counts.items())
        return right / max(1, self.num_clips)


class CameraMotionReport(Record):
    """data/camera-motion/report.json."""

    num_clips: dict[CameraClass, int]
    confusion: Confusion | None  # over clips of our own synthetic videos; None if there are none
