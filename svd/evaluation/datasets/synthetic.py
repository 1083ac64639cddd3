"""Videos for small synthetic sets: a camera that pans over a painting, faster from clip to clip."""

import math
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from svd.curation.ingest.paintings import paint
from svd.errors import StoreError
from svd.media.encode import write_video


def pan(
    key: int, *, num_frames: int, height: int, width: int, speed: float = 0.05
) -> UInt8[ndarray, "t H W 3"]:
    """Return RGB frames of a pan that swings with `speed` radians a frame."""
    picture = paint(key, width=2 * width, height=height)
    swing = [math.sin(speed * index + key) for index in range(num_frames)]
    starts = [round(width / 2 * (1 + 0.95 * place)) for place in swing]
    return np.stack([picture[:, start : start + width] for start in starts])


def write_pan(path: Path, key: int, *, num_frames: int, height: int, width: int) -> None:
    """Write a pan as a video; its speed grows with the key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    speed = 0.03 + 0.02 * (key % 5)
    frames = pan(key, num_frames=num_frames, height=height, width=width, speed=speed)
    if path.suffix == ".avi":
        _write_avi(path, frames)
    else:
        write_video(path, frames, Fraction(25))


def write_picture(path: Path, picture: UInt8[ndarray, "H W c"]) -> None:
    """Write an RGB or RGBA picture.

    Raises:
        StoreError: It could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, code)):
        raise StoreError(f"{path}: the picture could not be written")


def _write_avi(path: Path, frames: UInt8[ndarray, "t H W 3"]) -> None:
    """Write Motion JPEG: what OpenCV can put into AVI everywhere."""
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
