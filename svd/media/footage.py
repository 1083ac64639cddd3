"""A short video in memory, all frames of one size: from a video file or a folder of pictures."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from svd.errors import MediaError, MissingInputError
from svd.media.decode import PictureMaker, decode_frames, index_packets
from svd.media.picture import PICTURE_SUFFIXES, fit_picture, read_picture


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames of a video.

    Attributes:
        frames: RGB.
        fps: Their mean rate; None for a folder of pictures, which has none.
    """

    frames: UInt8[np.ndarray, "t H W 3"]
    fps: Fraction | None


def read_footage(path: Path, *, height: int, width: int) -> Footage:
    """Read every frame, scaled to cover height x width and cropped to its centre.

    Args:
        path: A video file, or a folder of pictures that are its frames in the order of their names.
        height: Of the frames returned, pixels.
        width: Likewise.

    Raises:
        MediaError: Frames differ in size, there are fewer than two, or one cannot be read.
        MissingInputError: There is no such file or folder.
    """
    if not path.exists():
        raise MissingInputError(f"{path}: no such file or folder")
    fps = None if path.is_dir() else _mean_rate(path)
    pictures = _pictures(path) if path.is_dir() else _decoded(path)
    frames: list[np.ndarray] = []
    size: tuple[int, int] | None = None
    for picture in pictures:
        own = (picture.shape[1], picture.shape[0])
        size = size or own
        if own != size:
            raise MediaError(
                str(path),
                "frames-differ",
                f"frame {len(frames)} is {own[0]}x{own[1]} and the first {size[0]}x{size[1]}; "
                "all frames of a video must have one size",
            )
        frames.append(fit_picture(picture, height=height, width=width))
    if len(frames) < 2:
        raise MediaError(str(path), "too-few-frames", f"it has {len(frames)} frames, not 2 or more")
    return Footage(np.stack(frames), fps)


def _pictures(folder: Path) -> Iterator[np.ndarray]:
    members = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
    return (read_picture(member) for member in members)


def _decoded(path: Path) -> Iterator[np.ndarray]:
    """Yield upright RGB frames, each in the size that the stream has at its time."""
    makers: dict[tuple[int, int, int], PictureMaker] = {}
    with closing(decode_frames(path)) as decoding:
        for _, frame in decoding:
            turn = -frame.rotation % 360
            upright = (
                (frame.width, frame.height) if turn % 180 == 0 else (frame.height, frame.width)
            )
            key = (*upright, turn)
            if key not in makers:
                makers[key] = PictureMaker(width=upright[0], height=upright[1], rotation=turn)
            yield np.ascontiguousarray(makers[key](frame)[:, :, ::-1])


def _mean_rate(path: Path) -> Fraction | None:
    index = index_packets(path)
    pts = np.unique(index.pts[index.is_shown])
    if len(pts) < 2:
        return None
    seconds = int(pts[-1] - pts[0]) * index.time_base
    return Fraction(len(pts) - 1) / seconds
