"""Exact parts of a video as mp4 files: packets copied in one demux, or frames encoded anew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from svd.errors import MediaError
from svd.media.container import main_video_stream, open_container, time_base_of
from svd.media.decode import PacketIndex, PictureMaker, TimedFrame, decode_frames
from svd.media.sound import Sound, open_sound

# No encoder name, no dates, index first: equal packets give equal bytes, and a reader of a remote
# file finds the index at once.
_MUXER_OPTIONS = {"fflags": "+bitexact", "movflags": "+faststart"}


@dataclass(frozen=True, slots=True)
class Part:
    """Frames with start_pts <= pts < stop_pts of a video, and the mp4 they go to."""

    start_pts: int
    stop_pts: int
    target: Path


def copy_parts(path: Path, parts: Sequence[Part], *, keep_sound: bool = False) -> None:
    """Copy parts of a video's packets into mp4 files in one demux, without decoding.

    A part must start at a keyframe and stop where decode order is complete (svd.curation.clip.clips
    plans such spans); then each file shows exactly its frames, the first at time 0.

    Args:
        path: The video.
        parts: Disjoint, in order.
        keep_sound: Whether to copy the first sound track too, where an mp4 can hold it.

    Raises:
        MediaError: The video cannot be read, or an mp4 cannot hold its codec.
    """
    remaining = list(parts)
    with (
        open_sound(path, wanted=keep_sound) as sound,
        open_container(path, reason="not-copyable") as source,
    ):
        stream = main_video_stream(source, path)
        time_base = time_base_of(stream, path)
        writer: _PartWriter | None = None
        for packet in source.demux(stream):
            if packet.pts is None or not packet.size:
                continue
            while remaining and packet.pts >= remaining[0].stop_pts:
                remaining.pop(0)
                if writer is not None:
                    writer.close()
                writer = None
            if not remaining:
                break
            if packet.pts >= remaining[0].start_pts:
                writer = writer or _PartWriter(remaining[0], stream, time_base, sound)
                writer.write(packet, pts=packet.pts)
        if writer is not None:
            writer.close()


class _PartWriter:
    def __init__(
        self, part: Part, template: av.VideoStream, time_base: Fraction, sound: Sound
    ) -> None:
        self._part = part
        self._partial = _partial(part.target)
        self._container = _open_mp4(self._partial, time_base)
        # Opaque: packets are copied, so no encoder need exist (for AV1 there may be none).
        self._stream = self._container.add_stream_from_template(template, opaque=True)
        self._stream.time_base = time_base
        _add_sound(self._container, sound, part, time_base)

    def write(self, packet: "av.packet.Packet[av.VideoStream]", *, pts: int) -> None:
        packet.pts = pts - self._part.start_pts
        if packet.dts is not None:
            packet.dts -= self._part.start_pts
        packet.stream = self._stream
        self._container.mux(packet)

    def close(self) -> None:
        self._container.close()
        self._partial.replace(self._part.target)


def encode_parts(
    path: Path,
    parts: Sequence[Part],
    *,
    index: PacketIndex,
    width: int,
    height: int,
    rotation: int,
    crf: int,
    preset: str,
    keep_sound: bool = False,
) -> None:
    """Decode parts of a video and write them as H.264 in mp4, frame for frame, times kept.

    Args:
        path: The video.
        parts: Disjoint, in order.
        index: Of the video's packets; decoding starts at the last keyframe before each part.
        width: Of the upright picture; odd sides lose one column or row.
        height: Likewise.
        rotation: Degrees clockwise to apply.
        crf: x264's constant quality.
        preset: x264's speed against size.
        keep_sound: Whether to copy the first sound track too, where an mp4 can hold it.

    Raises:
        MediaError: The video cannot be read.
    """
    size = (width // 2 * 2, height // 2 * 2)
    reader = _Reader(path, index)
    with open_sound(path, wanted=keep_sound) as sound:
        for part in parts:
            writer: _Encoder | None = None
            for (pts, frame), following in _with_next_pts(reader.frames_of(part), part.stop_pts):
                writer = writer or _Encoder(
                    part, index.time_base, size, rotation, sound, crf=crf, preset=preset
                )
                writer.write(pts, frame, duration=following - pts)
            if writer is None:
                detail = f"no frame decodes from pts {part.start_pts}"
                raise MediaError(str(path), "no-frames", detail)
            writer.close()


class _Reader:
    """Decodes parts of a video, in order: on and on, or from a keyframe where that is nearer."""

    def __init__(self, path: Path, index: PacketIndex) -> None:
        self._path = path
        self._keys = np.sort(index.pts[index.is_keyframe]) if index.is_seekable else index.pts[:0]
        self._frames: Iterator[TimedFrame] | None = None
        self._held: TimedFrame | None = None  # read, and not yet asked for

    def frames_of(self, part: Part) -> Iterator[TimedFrame]:
        key = self._key_before(part.start_pts)
        if self._frames is None or (
            key is not None and self._held is not None and key > self._held.pts
        ):
            self._frames = decode_frames(self._path, start_pts=key)
            self._held = next(self._frames, None)
        while self._held is not None and self._held.pts < part.stop_pts:
            if self._held.pts >= part.start_pts:
                yield self._held
            self._held = next(self._frames, None)

    def _key_before(self, pts: int) -> int | None:
        """Return where to start for a frame; None: at the beginning."""
        before = self._keys[self._keys <= pts]
        return int(before[-1]) if len(before) > 1 else None


def _with_next_pts(frames: Iterator[TimedFrame], stop_pts: int) -> Iterator[tuple[TimedFrame, int]]:
    last: TimedFrame | None = None
    for timed in frames:
        if last is not None:
            yield last, timed.pts
        last = timed
    if last is not None:
        yield last, stop_pts


class _Encoder:
    def __init__(
        self,
        part: Part,
        time_base: Fraction,
        size: tuple[int, int],
        rotation: int,
        sound: Sound,
        *,
        crf: int,
        preset: str,
    ) -> None:
        self._part = part
        self._partial = _partial(part.target)
        self._size = size
        self._upright = PictureMaker(width=size[0], height=size[1], rotation=rotation)
        self._is_rotated = rotation != 0
        self._time_base = time_base
        self._container = _open_mp4(self._partial, self._time_base)
        # x264's vector code gives other bytes on other processors; cpu-independent does not.
        options = {"crf": str(crf), "preset": preset, "x264-params": "cpu-independent=1"}
        self._stream = self._container.add_stream("libx264", options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._time_base
        context = self._stream.codec_context
        context.time_base = self._time_base
        context.thread_count = 1
        _add_sound(self._container, sound, part, time_base)

    def write(self, pts: int, frame: av.VideoFrame, *, duration: int) -> None:
        if self._is_rotated:
            picture = av.VideoFrame.from_ndarray(self._upright(frame), format="bgr24")
        else:
            picture = frame
        encoded = picture.reformat(*self._size, "yuv420p", interpolation="BICUBIC")
        encoded.pts = pts - self._part.start_pts
        encoded.time_base = self._time_base
        encoded.duration = duration
        encoded.pict_type = 0
        self._container.mux(self._stream.encode(encoded))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._partial.replace(self._part.target)


def _add_sound(
    container: av.container.OutputContainer, sound: Sound, part: Part, time_base: Fraction
) -> None:
    sound.add_to(container, start_s=part.start_pts * time_base, stop_s=part.stop_pts * time_base)


def _open_mp4(path: Path, time_base: Fraction) -> av.container.OutputContainer:
    options = _MUXER_OPTIONS | {"video_track_timescale": str(time_base.denominator)}
    return av.open(str(path), "w", format="mp4", options=options)


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")
