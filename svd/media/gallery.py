"""Frames as files that a person opens: animated GIF, numbered PNG, contact sheet.

Each appears under its name only when it is complete.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.filter
import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from svd.atomic import new_file, new_folder
from svd.errors import ConfigError

_GAP = 4  # pixels between the pictures of a sheet
_RGB = av.VideoFormat("rgb24")
_PAPER = 255  # grey level of the sheet


def write_gif(path: Path, frames: UInt8[ndarray, "t H W 3"], fps: Fraction | int) -> None:
    """Write an endless GIF with one palette of its own.

    GIF counts time in hundredths of a second, so rates above 50 or odd ones are rounded.
    """
    rate = Fraction(fps)
    with (
        new_file(path) as partial,
        av.open(partial, "w", format="gif", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("gif", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "pal8"
        for frame in _with_palette(frames, rate):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _with_palette(frames: UInt8[ndarray, "t H W 3"], rate: Fraction) -> list[av.VideoFrame]:
    """Return the frames in 256 colours chosen from all of them."""
    graph = av.filter.Graph()
    height, width = frames.shape[1:3]
    source = graph.add_buffer(width=width, height=height, format=_RGB, time_base=1 / rate)
    split, choose, use = (graph.add(name) for name in ("split", "palettegen", "paletteuse"))
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(choose, 1, 0)
    choose.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        source.push(frame)
    source.push(None)
    done: list[av.VideoFrame] = []
    while len(done) < len(frames):
        coloured = cast("av.VideoFrame", sink.pull())
        coloured.pts, coloured.time_base = len(done), 1 / rate
        done.append(coloured)
    return done


def write_png_frames(folder: Path, frames: UInt8[ndarray, "t H W 3"]) -> None:
    """Write frames as 00000.png, 00001.png, ... of a folder, which is replaced as a whole."""
    with new_folder(folder) as partial:
        for index, frame in enumerate(frames):
            _write_png(partial / f"{index:05d}.png", frame)


def write_contact_sheet(
    path: Path, videos: Sequence[UInt8[ndarray, "t H W 3"]], *, columns: int = 6
) -> None:
    """Write one PNG with a row per video: frames from the first to the last, evenly spaced.

    Raises:
        ConfigError: No video, or videos of different sizes.
    """
    sizes = {video.shape[1:3] for video in videos}
    if len(sizes) != 1:
        raise ConfigError(f"{path}: a contact sheet needs videos of one size, not {len(sizes)}")
    height, width = sizes.pop()
    columns = min(columns, max(len(video) for video in videos))
    sheet = np.full(
        (
            len(videos) * (height + _GAP) + _GAP,
            columns * (width + _GAP) + _GAP,
            3,
        ),
        _PAPER,
        dtype=np.uint8,
    )
    for row, video in enumerate(videos):
        top = _GAP + row * (height + _GAP)
        for column, index in enumerate(np.linspace(0, len(video) - 1, columns).round().astype(int)):
            left = _GAP + column * (width + _GAP)
            sheet[top : top + height, left : left + width] = video[index]
    _write_png(path, sheet)


def _write_png(path: Path, picture: UInt8[ndarray, "H W 3"]) -> None:
    done, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ConfigError(f"{path}: OpenCV cannot encode a picture of shape {picture.shape}")
    with new_file(path) as partial:
        partial.write_bytes(content.tobytes())
