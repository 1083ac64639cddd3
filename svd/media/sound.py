"""The sound of a video, handed out part by part as the packets it is stored in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
from av.container import InputContainer

from svd.media.container import open_container

if TYPE_CHECKING:
    Packet = av.packet.Packet[av.AudioStream]

COPYABLE_SOUND: Final = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})  # by mp4


class Sound:
    """Copies the first sound track of a video, or nothing if an mp4 cannot hold it.

    Parts are asked for in order, so one demux serves them all.
    """

    def __init__(self, stream: av.AudioStream | None, packets: "Iterator[Packet]") -> None:
        """Wrap a track of an open file and its packets; None: silence."""
        self._stream = stream
        self._packets = packets
        self._held = next(packets, None)

    def add_to(
        self, container: av.container.OutputContainer, *, start_s: Fraction, stop_s: Fraction
    ) -> None:
        """Add what begins in [start_s, stop_s) to a file whose pictures begin at start_s.

        To be called when the file's other streams are known, before their first packet.
        """
        if self._stream is None or self._stream.time_base is None:
            return
        tick = Fraction(self._stream.time_base)
        first, last = math.ceil(start_s / tick), math.ceil(stop_s / tick)
        target = container.add_stream_from_template(self._stream, opaque=True)
        target.time_base = tick
        while self._held is not None and (self._held.pts or 0) < last:
            packet, self._held = self._held, next(self._packets, None)
            if packet.pts is None or packet.pts < first:
                continue
            packet.pts -= first
            packet.dts = packet.pts  # sound has no reordering
            packet.stream = target
            container.mux(packet)


def _packets(container: InputContainer, stream: av.AudioStream) -> "Iterator[Packet]":
    for packet in container.demux(stream):
        if packet.size and packet.pts is not None:
            yield packet


@contextmanager
def open_sound(path: Path, *, wanted: bool) -> Iterator[Sound]:
    """Open a video's sound; silence if none is wanted, or none can be copied.

    Raises:
        MediaError: The file cannot be read.
    """
    if not wanted:
        yield Sound(None, iter(()))
        return
    with open_container(path) as container:
        tracks = [s for s in container.streams.audio if s.codec_context is not None]
        copyable = [s for s in tracks if s.codec_context.name in COPYABLE_SOUND]
        if copyable:
            yield Sound(copyable[0], _packets(container, copyable[0]))
        else:
            yield Sound(None, iter(()))
