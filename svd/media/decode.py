"""Demuxing and decoding with exact times; one decoder thread, no hidden conversion."""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter

from svd.errors import MediaError
from svd.media.container import main_video_stream, open_container, time_base_of

# Containers whose index makes a seek to a keyframe exact; others are read from their start.
_SEEKABLE_FORMATS = frozenset({"mov", "mp4", "matroska", "webm"})


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """What demuxing alone tells of a video stream, in decode order.

    Attributes:
        pts: Presentation times in ticks; packets without one are left out.
        is_keyframe: Whether decoding can start there.
        is_shown: Whether its picture is presented; pre-roll of an edit list is not.
        num_untimed: Packets left out.
        time_base: Seconds per tick.
        codec: FFmpeg's name of the codec, whichever library decodes it.
        is_seekable: Whether a seek to a keyframe's pts lands on it.
    """

    pts: np.ndarray  # int64
    is_keyframe: np.ndarray  # bool
    is_shown: np.ndarray  # bool
    num_untimed: int
    time_base: Fraction
    codec: str
    is_seekable: bool


def index_packets(path: Path) -> PacketIndex:
    """Demux a file's first video stream without decoding it.

    Raises:
        MediaError: The file cannot be opened or has no video packets.
    """
    pts: list[int] = []
    keys: list[bool] = []
    shown: list[bool] = []
    num_untimed = 0
    with open_container(path) as container:
        stream = main_video_stream(container, path)
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None:
                num_untimed += 1
            else:
                pts.append(packet.pts)
                keys.append(packet.is_keyframe)
                shown.append(not packet.is_discard)
        names = set(container.format.name.split(","))
        index = PacketIndex(
            pts=np.array(pts, dtype=np.int64),
            is_keyframe=np.array(keys, dtype=bool),
            is_shown=np.array(shown, dtype=bool),
            num_untimed=num_untimed,
            time_base=time_base_of(stream, path),
            codec=stream.codec_context.codec.canonical_name,
            is_seekable=bool(names & _SEEKABLE_FORMATS),
        )
    if not pts:
        raise MediaError(str(path), "no-frames", "the video stream has no packets")
    return index


class TimedFrame(NamedTuple):
    """A decoded frame and the tick at which it is shown."""

    pts: int
    frame: av.VideoFrame


@dataclass(slots=True)
class DecodeErrors:
    """What went wrong while decoding went on."""

    num_bad_packets: int = 0  # refused by the decoder
    num_damaged_frames: int = 0  # decoded, but marked as damaged
    num_untimed_frames: int = 0  # without a presentation time; left out
    num_disordered_frames: int = 0  # not later than the frame before; left out
    first_message: str = field(default="")

    def take(self) -> "DecodeErrors":
        """Return what was counted so far and begin anew."""
        counted = replace(self)
        self.num_bad_packets = self.num_damaged_frames = 0
        self.num_untimed_frames = self.num_disordered_frames = 0
        return counted


def decode_frames(
    path: Path, *, start_pts: int | None = None, errors: DecodeErrors | None = None
) -> Generator[TimedFrame, None, None]:
    """Yield a video's decoded frames in presentation order, with strictly rising pts.

    Rotation and sample aspect are not applied. A packet the decoder refuses is counted and
    skipped, so a damaged file gives what it holds.

    Args:
        path: The file.
        start_pts: Ticks; the pts of a keyframe at which to start. None: the first frame.
        errors: Filled in while frames are drawn.

    Raises:
        MediaError: The file cannot be opened or read.
    """
    errors = errors if errors is not None else DecodeErrors()
    with open_container(path) as container:
        stream = main_video_stream(container, path)
        stream.codec_context.thread_count = 1
        if start_pts is not None:
            container.seek(start_pts, stream=stream, backward=True, any_frame=False)
        last = None if start_pts is None else start_pts - 1
        for packet in container.demux(stream):
            for frame in _decode_packet(packet, errors):
                if frame.pts is None:
                    errors.num_untimed_frames += 1
                elif last is not None and frame.pts <= last:
                    before_start = start_pts is not None and frame.pts < start_pts
                    errors.num_disordered_frames += not before_start
                else:
                    last = frame.pts
                    errors.num_damaged_frames += bool(frame.is_corrupt)
                    yield TimedFrame(frame.pts, frame)


def _decode_packet(
    packet: "av.packet.Packet[av.VideoStream]", errors: DecodeErrors
) -> list[av.VideoFrame]:
    try:
        frames = packet.decode()
    except FFmpegError as err:
        errors.num_bad_packets += 1
        errors.first_message = errors.first_message or str(err)
        return []
    return frames


class PictureMaker:
    """Turns decoded frames of one video into small upright BGR pictures.

    The scaler reads the decoder's planes in place and is kept between frames.
    """

    def __init__(
        self, *, width: int, height: int, rotation: int = 0, interpolation: str = "AREA"
    ) -> None:
        """Prepare.

        Args:
            width: Of the upright picture, pixels.
            height: Likewise.
            rotation: Degrees clockwise, a multiple of 90, to apply to the decoded picture.
            interpolation: FFmpeg's name; "AREA" for pictures, "FAST_BILINEAR" for detectors.
        """
        self._turned = rotation % 180 != 0
        self._size = (height, width) if self._turned else (width, height)
        self._quarter_turns = (rotation // 90) % 4
        self._interpolation = Interpolation[interpolation]
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the picture, uint8, (height, width, 3), BGR."""
        width, height = self._size
        scaled = self._reformatter.reformat(
            frame, width, height, "bgr24", interpolation=self._interpolation, threads=1
        )
        picture: np.ndarray = scaled.to_ndarray()
        if self._quarter_turns:
            picture = np.ascontiguousarray(np.rot90(picture, k=-self._quarter_turns))
        return picture


def fit_short_side(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the even (width, height) with this shorter side and nearly this aspect.

    A picture is never made larger than it is.
    """
    scale = min(1.0, short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
