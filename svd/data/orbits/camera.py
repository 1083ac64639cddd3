"""Cameras on a circle around the unit sphere, and where a point of the object lands in a view.

World axes: y is up. An orbit turns about y; azimuth 0 looks along -z from +z.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from svd.config.orbits import OrbitCameraConfig


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole that looks at the origin.

    Attributes:
        eye: Its place.
        fov_deg: Of the shorter side of the picture.
    """

    eye: Float64[ndarray, " 3"]
    fov_deg: float

    def project(
        self, points: Float64[ndarray, "n 3"], *, height: int, width: int
    ) -> Float64[ndarray, "n 2"]:
        """Return columns and rows in pixels; the centre of the first pixel is (0.5, 0.5)."""
        forward = -self.eye / np.linalg.norm(self.eye)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        seen = points - self.eye
        depth = seen @ forward
        focal = min(height, width) / 2 / math.tan(math.radians(self.fov_deg) / 2)
        across, along = seen @ right / depth, seen @ down / depth
        return np.stack([width / 2 + focal * across, height / 2 + focal * along], axis=1)


def orbit_azimuths(num_views: int) -> tuple[float, ...]:
    """Return degrees since the first view; equal steps, and the last is one step before it."""
    return tuple(360 * view / num_views for view in range(num_views))


def orbit_cameras(
    config: OrbitCameraConfig, *, elevation_deg: float, start_deg: float
) -> list[Camera]:
    """Return the cameras of an orbit.

    Args:
        config: Lens and number of views.
        elevation_deg: Above the object's equator.
        start_deg: World azimuth of the first view.
    """
    distance = config.margin / math.sin(math.radians(config.fov_deg) / 2)
    height = distance * math.sin(math.radians(elevation_deg))
    radius = distance * math.cos(math.radians(elevation_deg))
    cameras = []
    for azimuth_deg in orbit_azimuths(config.num_views):
        angle = math.radians(start_deg + azimuth_deg)
        eye = np.array([radius * math.sin(angle), height, radius * math.cos(angle)])
        cameras.append(Camera(eye=eye, fov_deg=config.fov_deg))
    return cameras
