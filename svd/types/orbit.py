"""What the stage orbits leaves: views of objects with the camera they were seen from."""

from pathlib import PurePosixPath
from typing import Final, Literal, get_args

from pydantic import Field

from svd.types.annotation import SplitName
from svd.types.base import Record

# A pose that a model may be told of, per view: degrees above the object's equator, and degrees
# around it since the first view.
PoseAngle = Literal["elevation", "azimuth"]
POSE_ANGLES: Final[tuple[PoseAngle, ...]] = get_args(PoseAngle)
# What multi-view finetuning starts from: the image-to-video model, the image model, nothing.
PriorName = Literal["video-prior", "image-prior", "scratch"]
PRIORS: Final[tuple[PriorName, ...]] = get_args(PriorName)


class CameraPose(Record):
    """Where the camera of one view stood."""

    elevation_deg: float = Field(ge=-90, le=90)  # above the object's equator
    azimuth_deg: float = Field(ge=0, lt=360)  # around it, since the first view


class OrbitMeta(Record):
    """`<orbit_id>.json` in an orbit's tar, and a line of index.jsonl."""

    orbit_id: str  # "<object_id>-<number>"; stem of the tar and of its members' names
    object_id: str  # splits are by object
    source_uri: str  # the mesh, or the folder of pictures, below the source's root
    source_sha256: str
    split: SplitName
    num_views: int = Field(ge=1)
    height: int = Field(ge=1)  # pixels
    width: int = Field(ge=1)  # pixels
    has_alpha: bool  # views are RGBA; else the background is white or what was filmed
    poses: tuple[CameraPose, ...] = ()  # one per view; empty where the camera is not known
    renderer: str  # e.g. "mitsuba 3.9.1, scalar_rgb, path, 32 samples"; "filmed" for pictures
    light: str  # e.g. "drawn 17-0" or the file name of a panorama; "filmed" for pictures

    def view_name(self, view: int) -> str:
        """Return the name of a view's member."""
        return f"{self.orbit_id}.{view:03d}.png"

    @property
    def tar_uri(self) -> str:
        """Where the tar lies, below the stage's output."""
        return str(PurePosixPath("tars") / f"{self.orbit_id}.tar")


class RejectedObject(Record):
    """An object that gave no views, with its reason; nothing vanishes."""

    object_id: str
    source_uri: str
    reason: str  # machine-readable class, e.g. "no-faces"
    detail: str
