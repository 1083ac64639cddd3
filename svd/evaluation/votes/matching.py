"""Videos of one item brought to one form: the same size, length and rate, so none is told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray

from svd.errors import MediaError
from svd.evaluation.reading import read_window
from svd.media.decode import index_packets
from svd.media.picture import fit_picture

_SPOILED_SIDE = 6  # pixels along the shorter side of a ruined video: nobody prefers it


@dataclass(frozen=True, slots=True)
class Clip:
    """A sample as it was found.

    Attributes:
        frames: RGB, 0..255.
        fps: Mean rate.
    """

    frames: UInt8[ndarray, "t H W 3"]
    fps: Fraction


def read_clip(path: Path) -> Clip:
    """Read a video whole.

    Raises:
        MediaError: It cannot be read or has fewer than two frames.
    """
    frames = rearrange(read_window(path), "t c H W -> t H W c").numpy()
    index = index_packets(path)
    pts = np.unique(index.pts[index.is_shown])
    if len(frames) < 2 or len(pts) < 2:
        raise MediaError(str(path), "too-few-frames", f"{len(frames)} frames, not 2 or more")
    return Clip(frames, Fraction(len(pts) - 1) / (int(pts[-1] - pts[0]) * index.time_base))


def match_form(clips: Sequence[Clip]) -> tuple[list[UInt8[ndarray, "t H W 3"]], Fraction]:
    """Return the clips at the smallest size, shortest length and lowest rate among them.

    Nothing is invented: frames are dropped to reach the rate, pictures are shrunk and cropped at
    the centre. This is what the paper did by hand with its competitors' videos (appendix E.3).
    """
    fps = min(clip.fps for clip in clips)
    duration_s = min(len(clip.frames) / clip.fps for clip in clips)
    height = min(clip.frames.shape[1] for clip in clips) // 2 * 2
    width = min(clip.frames.shape[2] for clip in clips) // 2 * 2
    times = [index / fps for index in range(max(2, int(duration_s * fps)))]
    return [
        np.stack(
            [
                fit_picture(clip.frames[_frame_at(clip, time)], height=height, width=width)
                for time in times
            ]
        )
        for clip in clips
    ], fps


def _frame_at(clip: Clip, time: Fraction) -> int:
    return min(len(clip.frames) - 1, int(time * clip.fps))


def ruin(frames: UInt8[ndarray, "t H W 3"]) -> UInt8[ndarray, "t H W 3"]:
    """Return a video that no attentive rater prefers: blocks of a few pixels, standing still."""
    height, width = frames.shape[1:3]
    scale = _SPOILED_SIDE / min(height, width)
    small = (max(2, round(width * scale)), max(2, round(height * scale)))
    blocks = cv2.resize(frames[0], small, interpolation=cv2.INTER_AREA)
    large = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.repeat(large[None], len(frames), axis=0)
