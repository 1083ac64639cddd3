"""Frames of a benchmark's videos and pictures as they are, by position and not by time."""

from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from svd.errors import MediaError, MissingInputError
from svd.media.decode import DecodeErrors, PictureMaker, decode_frames, index_packets
from svd.media.picture import read_picture_over_white


def count_frames(path: Path) -> int:
    """Return how many frames a video shows, without decoding it.

    Raises:
        MissingInputError: No such file.
        MediaError: It cannot be read.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    return int(index_packets(path).is_shown.sum())


def read_window(
    path: Path, *, start_frame: int = 0, num_frames: int | None = None
) -> UInt8[Tensor, "t c H W"]:
    """Return consecutive frames at their own size, upright, RGB.

    Args:
        path: A video.
        start_frame: The first one, counting from 0.
        num_frames: How many; None is all that follow.

    Raises:
        MissingInputError: No such file.
        MediaError: It cannot be read or has fewer frames.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    stop = None if num_frames is None else start_frame + num_frames
    pictures: list[np.ndarray] = []
    make: PictureMaker | None = None
    with closing(decode_frames(path, errors=DecodeErrors())) as decoding:
        for index, (_, frame) in enumerate(decoding):
            if stop is not None and index >= stop:
                break
            if index < start_frame:
                continue
            if make is None:
                turned = frame.rotation % 180 != 0
                width, height = (
                    (frame.height, frame.width) if turned else (frame.width, frame.height)
                )
                make = PictureMaker(width=width, height=height, rotation=-frame.rotation % 360)
            pictures.append(make(frame)[..., ::-1])
    if not pictures or (num_frames is not None and len(pictures) < num_frames):
        wanted = "a frame" if num_frames is None else f"frames {start_frame}..{stop}"
        raise MediaError(str(path), "too-short", f"{len(pictures)} frames where {wanted} is wanted")
    return _stacked(pictures)


def read_pictures(paths: list[Path]) -> UInt8[Tensor, "t c H W"]:
    """Return pictures of one size as frames; transparency is laid over white.

    Raises:
        MissingInputError: One is not there.
        MediaError: One is no picture, or of another size.
    """
    pictures = [read_picture_over_white(path) for path in paths]
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise MediaError(str(paths[0].parent), "mixed-sizes", f"pictures of {sorted(sizes)}")
    return _stacked(pictures)


def _stacked(pictures: list[np.ndarray]) -> Tensor:
    frames = torch.from_numpy(np.ascontiguousarray(np.stack(pictures)))
    return rearrange(frames, "t H W c -> t c H W").contiguous()
