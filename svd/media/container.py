"""Opening a video file whose bytes and name may mean harm, and finding the video in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from svd.errors import MediaError, is_disk_full

# FFmpeg's demuxers that hold one video in one file, with the suffixes such a file may have. All
# else FFmpeg opens (playlists that name other files, pictures, subtitles) is no video to us.
CONTAINERS: Final[dict[str, tuple[str, ...]]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": (".mp4", ".mov", ".m4v", ".3gp", ".3g2"),
    "matroska,webm": (".mkv", ".webm"),
    "avi": (".avi",),
    "mpegts": (".ts", ".m2ts", ".mts"),
    "mpeg": (".mpg", ".mpeg", ".vob"),
    "flv": (".flv",),
    "asf": (".wmv", ".asf"),
    "ogg": (".ogv", ".ogg"),
    "mxf": (".mxf",),
    "nut": (".nut",),
    "ivf": (".ivf",),
    "rm": (".rm", ".rmvb"),
    "dv": (".dv",),
    "yuv4mpegpipe": (".y4m",),
}


class _Nameless:
    """A file without its name, which FFmpeg could take for a hint, a protocol or a pattern."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def open_container(path: Path, *, reason: str = "unreadable") -> Iterator[InputContainer]:
    """Open a file whose container is one of ours; FFmpeg's errors inside become MediaError.

    Args:
        path: The file.
        reason: Of the MediaError if FFmpeg cannot read the file.

    Raises:
        MediaError: The file cannot be read, or asks for more memory than there is.
    """
    options = {"format_whitelist": ",".join(CONTAINERS)}
    try:
        with (
            path.open("rb") as file,
            av.open(_Nameless(file), "r", options=options, metadata_errors="replace") as container,
        ):
            yield container
    except MemoryError as err:
        raise MediaError(str(path), "out-of-memory", "its header asks for too much memory") from err
    except (FFmpegError, OSError, OverflowError, ValueError) as err:
        if is_disk_full(err):  # of what is written while this file is read
            raise
        raise MediaError(
            str(path), reason, f"no video FFmpeg can read: {ffmpeg_words(err)}"
        ) from err


def main_video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that is not a cover picture.

    Raises:
        MediaError: There is none ("no-video-stream"), or none we can decode ("unknown-codec").
    """
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        held = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise MediaError(str(path), "no-video-stream", f"the file holds {held}")
    if streams[0].codec_context is None:
        raise MediaError(str(path), "unknown-codec", "no decoder for the video stream")
    return streams[0]


def time_base_of(stream: VideoStream, path: Path) -> Fraction:
    """Return the seconds per tick of a stream.

    Raises:
        MediaError: The file does not say.
    """
    if stream.time_base is None:
        raise MediaError(str(path), "no-time-base", "the video stream has no unit of time")
    return Fraction(stream.time_base)


def ffmpeg_words(err: Exception) -> str:
    """Return FFmpeg's sentence without its number and without a place in our program."""
    return getattr(err, "strerror", None) or str(err)
