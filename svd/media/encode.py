"""Frames to a video file: same frames and options, same bytes."""

from collections.abc import Collection, Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from svd.atomic import new_file
from svd.errors import ConfigError

# Frames are converted and tagged as BT.601, narrow range: the one matrix that readers which
# ignore the tag (OpenCV) assume as well. Codes: ITU-T H.273, tables 2 to 4.
_SMPTE170M = 6
_NARROW_RANGE = 1

_MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}  # of a suffix


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: Fraction | int,
    *,
    crf: int = 18,
    gop: int = 250,
    preset: str = "veryfast",
    keyframes: Collection[int] = (),
    scenecut: bool = True,
) -> int:
    """Write frames as H.264 (.mp4, .mov, .mkv) or VP8 (.webm); return how many were written.

    One encoder thread and no time stamps or version strings, so equal input gives equal bytes
    with one build of the codec. The file appears under its name only when it is complete.

    Args:
        path: Where to write; the suffix chooses container and codec. Its folder must exist.
        frames: RGB pictures (H, W, 3), all of one size with even sides; an array (t, H, W, 3)
            will do, and so will a generator: one frame is held at a time.
        fps: Exact frame rate; frame i gets pts i in a time base of 1 / fps, or the nearest tick
            the container can hold (milliseconds in .mkv and .webm).
        crf: Constant quality, 0 (lossless for H.264) to 51 (63 for VP8); lower is better.
        gop: Most frames from one keyframe to the next.
        preset: x264's speed against size; ignored for VP8.
        keyframes: Indices of frames that must be keyframes, besides those the encoder chooses.
        scenecut: Whether the encoder puts keyframes where the picture changes; if not, only
            `gop` and `keyframes` place them.

    Raises:
        ConfigError: Unknown suffix, no frames, odd sides, or frames of unlike shape.
    """
    muxer = _MUXERS.get(path.suffix)
    if muxer is None:
        raise ConfigError(f"{path}: cannot write {path.suffix!r}; known: {', '.join(_MUXERS)}")
    codec = "libvpx" if muxer == "webm" else "libx264"
    rate = Fraction(fps)
    ordered = iter(frames)
    first = next(ordered, None)
    if first is None:
        raise ConfigError(f"{path}: a video of no frames")
    options = _options(codec, crf=crf, gop=gop, preset=preset, scenecut=scenecut)
    with (
        new_file(path) as partial,
        av.open(partial, "w", format=muxer, options=_muxer_options(muxer)) as container,
    ):
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
        _set_up(stream, first.shape, path)
        index = -1
        for index, pixels in enumerate(chain([first], ordered)):
            frame = _to_frame(pixels, first.shape, path)
            frame.pts, frame.time_base = index, 1 / rate
            if index in keyframes:
                frame.pict_type = PictureType.I
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return index + 1


def _options(codec: str, *, crf: int, gop: int, preset: str, scenecut: bool) -> dict[str, str]:
    common = {"crf": str(crf), "g": str(gop), "threads": "1", "flags": "+bitexact"}
    if codec == "libvpx":
        # Without a ceiling the rate control of VP8 takes crf for no more than a hint.
        speed = {"deadline": "good", "cpu-used": "4", "auto-alt-ref": "0", "b": "50M"}
        return common | speed | ({} if scenecut else {"keyint_min": str(gop)})
    # Without cpu-independent, x264's bytes depend on the processor's vector units, and with
    # AVX-512 even differ from one call to the next (seen with its macroblock tree).
    x264 = {"preset": preset, "forced-idr": "1", "x264-params": "cpu-independent=1"}
    return common | x264 | ({} if scenecut else {"sc_threshold": "0"})


def _muxer_options(muxer: str) -> dict[str, str]:
    index_first = {"movflags": "+faststart"} if muxer in {"mp4", "mov"} else {}
    return {"fflags": "+bitexact"} | index_first


def _set_up(stream: VideoStream, shape: tuple[int, ...], path: Path) -> None:
    height, width = shape[:2]
    if height % 2 or width % 2:
        raise ConfigError(f"{path}: {width}x{height} frames; 4:2:0 video needs even sides")
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1
    context.colorspace = context.color_primaries = context.color_trc = _SMPTE170M
    context.color_range = _NARROW_RANGE


def _to_frame(pixels: NDArray[np.uint8], shape: tuple[int, ...], path: Path) -> av.VideoFrame:
    if pixels.shape != shape or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ConfigError(f"{path}: a frame of shape {pixels.shape} among frames of {shape}")
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return rgb.reformat(
        format="yuv420p",
        dst_colorspace=_SMPTE170M,
        dst_color_range=_NARROW_RANGE,
        # Averages chroma over its 2x2 pixels and rounds; swscale's default truncates.
        interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
    )
