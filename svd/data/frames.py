"""Pictures of a clip at a frame rate, chosen by time, at the size the networks see."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from svd.config.data import PictureSize
from svd.errors import IntegrityError, MediaError, MissingInputError
from svd.media.decode import DecodeErrors, PictureMaker, decode_frames, index_packets
from svd.runtime.fingerprint import file_sha256
from svd.types.video import Clip

Frames = NDArray[np.uint8]  # (t, 3, H, W), RGB


@dataclass(frozen=True, slots=True)
class ClipFrames:
    """Frames of one clip.

    Attributes:
        by_size: One array per size asked for, in that order; equal numbers of frames.
        fps: Their true rate.
    """

    by_size: tuple[Frames, ...]
    fps: Fraction


def pick_pts(
    pts: Sequence[int], *, time_base: Fraction, fps: Fraction, max_frames: int
) -> tuple[int, ...]:
    """Return the presentation times of the frames nearest to 0, 1/fps, 2/fps, ... s.

    Time counts from the first frame; the last is taken to last as long as the one before it. Of
    two equally near frames the earlier one is taken. A gap in the source gives the same frame
    more than once, as a player would show it.

    Args:
        pts: Of all frames, in ticks, rising.
        time_base: Seconds per tick.
        fps: Frames per second wanted.
        max_frames: At most so many are returned.
    """
    picked: list[int] = []
    step = 1 / (fps * time_base)  # ticks between two wanted times, exact
    last_gap = pts[-1] - pts[-2] if len(pts) > 1 else 1
    for here, following in pairwise([*pts, pts[-1] + last_gap]):
        middle = Fraction(here + following, 2) - pts[0]
        is_last = here == pts[-1]
        while len(picked) < max_frames:
            wanted = len(picked) * step
            if wanted > middle or (is_last and wanted == middle):
                break
            picked.append(here)
    return tuple(picked)


def read_frames(
    path: Path, clip: Clip, *, fps: Fraction, sizes: Sequence[PictureSize], max_frames: int
) -> ClipFrames:
    """Decode a clip once and return its pictures at a frame rate, at each size.

    A picture is scaled by area averaging until it covers the size, then cropped to its centre. A
    clip of a lower rate than asked for keeps its own.

    Args:
        path: The clip's file.
        clip: What is known of it; its width and height are those of the displayed picture.
        fps: Frames per second wanted.
        sizes: Wanted sizes.
        max_frames: Taken at most, from the start.

    Raises:
        MediaError: The file cannot be read, or one of the wanted frames cannot be decoded.
        MissingInputError: The file is not there.
        IntegrityError: The file is not the one that was made into this clip.
    """
    _check_identity(path, clip)
    index = index_packets(path)
    rate = min(fps, clip.fps)
    pts = sorted(set(index.pts[index.is_shown].tolist()))
    wanted = pick_pts(pts, time_base=index.time_base, fps=rate, max_frames=max_frames)
    pictures = _decode(path, clip, frozenset(wanted), sizes)
    missing = len(set(wanted) - set(pictures))
    if missing:
        raise MediaError(
            str(path), "incomplete", f"{missing} of {len(set(wanted))} wanted frames do not decode"
        )
    by_size = tuple(np.stack([pictures[time][i] for time in wanted]) for i in range(len(sizes)))
    return ClipFrames(by_size=by_size, fps=rate)


def _check_identity(path: Path, clip: Clip) -> None:
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `svd clip` again")
    found = file_sha256(path)
    if found != clip.sha256:
        raise IntegrityError(f"{path} has sha256 {found}, its index names {clip.sha256}")


def _decode(
    path: Path, clip: Clip, wanted: frozenset[int], sizes: Sequence[PictureSize]
) -> dict[int, list[Frames]]:
    """Return the pictures of some frames, by presentation time."""
    pictures: dict[int, list[Frames]] = {}
    makers: list[_Cropper] = []
    last = max(wanted)
    with closing(decode_frames(path, errors=DecodeErrors())) as decoding:
        for pts, frame in decoding:
            if pts in wanted and not frame.is_corrupt:
                makers = makers or [_Cropper(clip, size, rotation=frame.rotation) for size in sizes]
                pictures[pts] = [maker(frame) for maker in makers]
            if pts >= last:
                break
    return pictures


class _Cropper:
    """Scales decoded frames to cover a size and crops their centre."""

    def __init__(self, clip: Clip, size: PictureSize, *, rotation: int) -> None:
        """Prepare; `rotation` is FFmpeg's, in degrees counterclockwise."""
        width, height = cover(clip.width, clip.height, size)
        self._left, self._top = (width - size.width) // 2, (height - size.height) // 2
        self._size = size
        self._make = PictureMaker(width=width, height=height, rotation=-rotation % 360)

    def __call__(self, frame: av.VideoFrame) -> Frames:
        bgr = self._make(frame)
        rows = slice(self._top, self._top + self._size.height)
        columns = slice(self._left, self._left + self._size.width)
        return np.ascontiguousarray(bgr[rows, columns, ::-1].transpose(2, 0, 1))


def cover(width: int, height: int, size: PictureSize) -> tuple[int, int]:
    """Return the smallest (width, height) of this aspect, to a pixel, that covers a size."""
    scale = max(Fraction(size.width, width), Fraction(size.height, height))
    return max(size.width, round(width * scale)), max(size.height, round(height * scale))
