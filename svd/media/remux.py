"""A part of a video as a file of its own, by copying packets."""

from pathlib import Path

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from svd.errors import MediaError


def copy_part(source: Path, target: Path, *, start_s: float, stop_s: float | None) -> None:
    """Copy the pictures from one keyframe up to another into a new mp4 file, without sound.

    The part begins at the first keyframe at or after `start_s` and ends before the first one
    at or after `stop_s`; times in the new file start at 0. Same source and times, same bytes.

    Raises:
        MediaError: The source cannot be read, or no keyframe lies in the part.
    """
    partial = target.with_name(f"{target.stem}.partial{target.suffix}")
    try:
        with (
            av.open(str(source)) as reader,
            av.open(
                partial,
                "w",
                format="mp4",
                options={"fflags": "+bitexact", "movflags": "+faststart"},
            ) as writer,
        ):
            stream = reader.streams.video[0]
            copy = writer.add_stream_from_template(stream)
            first: int | None = None
            for packet in reader.demux(stream):
                if packet.size == 0 or packet.pts is None or packet.dts is None:
                    continue
                time_s = float(packet.pts * packet.time_base)
                if packet.is_keyframe and first is not None and _is_after(time_s, stop_s):
                    break
                if packet.is_keyframe and first is None and time_s >= start_s:
                    first = packet.pts
                if first is not None and packet.pts >= first:
                    writer.mux(_shifted(packet, first, copy))
    except FFmpegError as err:
        raise MediaError(str(source), "unreadable", str(err)) from err
    if first is None:
        raise MediaError(str(source), "no-keyframe", f"none at or after {start_s:g} s")
    partial.replace(target)


def _is_after(time_s: float, stop_s: float | None) -> bool:
    return stop_s is not None and time_s >= stop_s


def _shifted(
    packet: "Packet[VideoStream]", first: int, stream: VideoStream
) -> "Packet[VideoStream]":
    """Return the packet moved so that pts `first` becomes 0, for another stream."""
    if packet.pts is not None and packet.dts is not None:
        packet.pts -= first
        packet.dts -= first
    packet.stream = stream
    return packet
