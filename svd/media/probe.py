"""What a video file holds, found by demuxing all of it and decoding little of it."""

from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from svd.config.ingest import ProbeLimits
from svd.errors import MediaError
from svd.media.container import CONTAINERS, ffmpeg_words, main_video_stream, open_container
from svd.media.sniff import HEAD_BYTES, declared_size, image_kind, is_iso_media, is_text, top_boxes
from svd.media.timing import MAX_PLAUSIBLE_FPS, Timing, measure_timing
from svd.types.video import VideoProbe

# Boxes whose loss is a loss of pictures; what follows them may be any rubbish.
_ESSENTIAL_BOXES: Final = frozenset({"mdat", "moof", "moov"})
_VP8_SHOW_FRAME = 0x10  # bit of a VP8 packet's first byte. Source: RFC 6386, 9.1

Rotation = Literal[0, 90, 180, 270]
_RIGHT_ANGLES: Final[tuple[Rotation, ...]] = (0, 90, 180, 270)


class Probed(NamedTuple):
    """A usable video."""

    probe: VideoProbe
    suffix: str  # by which its container is known, e.g. ".mp4"


class _Packets(NamedTuple):
    """A stream's packets, seen by demuxing."""

    pts: NDArray[np.int64]  # of pictures that are shown, sorted
    last_duration: int  # ticks; 0 if unknown
    num_packets: int  # with those that are not shown
    num_keyframes: int


class _Header(NamedTuple):
    """What the container says of the stream."""

    codec: str
    time_base: Fraction
    claimed_rates: tuple[Fraction, ...]
    index_end: int  # bytes; where the last packet the index knows of ends; 0 without an index
    has_audio: bool
    suffix: str


def probe_video(path: Path, limits: ProbeLimits | None = None) -> Probed:
    """Return what a file's video stream is, or the reason why it is no video for us.

    Sizes are in pixels of the decoded picture after rotation; a sample aspect ratio is not
    applied. Pictures that an edit list hides are not counted.

    Args:
        path: A regular file.
        limits: What is still acceptable, and how much is decoded to prove it.

    Raises:
        MediaError: With one of the reasons of docs/curation/sources.md.
    """
    limits = limits or ProbeLimits()
    _check_bytes(path, limits)
    with open_container(path, reason="not-a-video") as container:
        stream = main_video_stream(container, path)
        header = _read_header(container, stream, path, limits)
        packets = _demux(container, stream, path, limits)
    _check_complete(path, header, packets)
    timing = _time(path, header, packets, limits)
    frame = _prove_decodable(path, limits, num_packets=packets.num_packets)
    _check_size(path, frame.width, frame.height, limits)
    rotation = _rotation(frame, path)
    turned = rotation in {90, 270}
    probe = VideoProbe(
        codec=header.codec,
        width=frame.height if turned else frame.width,
        height=frame.width if turned else frame.height,
        rotation=rotation,
        fps=timing.fps,
        time_base=header.time_base,
        num_frames=len(packets.pts),
        num_keyframes=packets.num_keyframes,
        start_pts=timing.start_pts,
        duration_s=float(timing.duration),
        is_vfr=timing.is_vfr,
        has_audio=header.has_audio,
        pixel_format=frame.format.name,
    )
    return Probed(probe, header.suffix)


def _check_bytes(path: Path, limits: ProbeLimits) -> None:
    """Refuse what size and first bytes already give away."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as err:
        raise MediaError(str(path), "unreadable", err.strerror or str(err)) from err
    if size == 0:
        raise MediaError(str(path), "empty-file", "the file has no bytes")
    if size > limits.max_size_bytes:
        raise MediaError(
            str(path), "too-large-file", f"{size} bytes; at most {limits.max_size_bytes} are taken"
        )
    picture = image_kind(head)
    if picture is not None:
        raise MediaError(str(path), "image", f"the file is a {picture} picture")
    if is_text(head):
        raise MediaError(str(path), "not-a-video", "the file is text")
    if is_iso_media(head):
        _check_boxes(path)
    declared = declared_size(head)
    if declared is not None and declared > size:
        raise MediaError(
            str(path), "truncated", f"its header says {declared} bytes; {size} are there"
        )


def _check_boxes(path: Path) -> None:
    """Refuse an mp4 or mov file that ends too early or has no index."""
    boxes = top_boxes(path)
    if boxes.cut_box in _ESSENTIAL_BOXES or (boxes.cut_box and not boxes.has_index):
        raise MediaError(
            str(path),
            "truncated",
            f"the last {boxes.missing_bytes} bytes of its {boxes.cut_box!r} box are missing"
            + ("" if boxes.has_index else ", and so is its index"),
        )
    if not boxes.has_index:
        raise MediaError(str(path), "not-a-video", "an mp4 file that never had an index (moov)")


def _read_header(
    container: InputContainer, stream: VideoStream, path: Path, limits: ProbeLimits
) -> _Header:
    context = stream.codec_context
    if stream.time_base is None or stream.time_base <= 0:
        raise MediaError(str(path), "no-timestamps", "the video stream has no time base")
    if context.width and context.height:  # else the decoder will tell
        _check_size(path, context.width, context.height, limits)
    if stream.frames > limits.max_frames:
        raise MediaError(
            str(path),
            "too-many-frames",
            f"the header claims {stream.frames} frames; at most {limits.max_frames} are taken",
        )
    claims = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return _Header(
        codec=context.codec.canonical_name,
        time_base=Fraction(stream.time_base),
        claimed_rates=tuple(Fraction(rate) for rate in claims if rate),
        index_end=max((entry.pos + entry.size for entry in stream.index_entries), default=0),
        has_audio=bool(container.streams.audio),
        suffix=_suffix(container, path),
    )


def _suffix(container: InputContainer, path: Path) -> str:
    """Return the file's own suffix if it fits what the file is, else the usual one."""
    fitting = CONTAINERS[container.format.name]
    own = path.suffix.lower()
    return own if own in fitting else fitting[0]


def _check_size(path: Path, width: int, height: int, limits: ProbeLimits) -> None:
    if min(width, height) < limits.min_side:
        raise MediaError(
            str(path),
            "too-small-picture",
            f"{width}x{height}; the shorter side must be at least {limits.min_side}",
        )
    if max(width, height) > limits.max_side:
        raise MediaError(
            str(path),
            "too-large-picture",
            f"{width}x{height}; the longer side may be at most {limits.max_side}",
        )


def _demux(
    container: InputContainer, stream: VideoStream, path: Path, limits: ProbeLimits
) -> _Packets:
    """Read every packet of the stream; pictures without a pts are timed by their dts."""
    pts: list[int] = []
    durations: dict[int, int] = {}
    num_packets = num_keyframes = 0
    for packet in container.demux(stream):
        if packet.size == 0:  # the mark PyAV puts after the last packet
            continue
        num_packets += 1
        num_keyframes += packet.is_keyframe
        if num_packets > limits.max_frames:
            raise MediaError(
                str(path), "too-many-frames", f"more than {limits.max_frames} frames are held"
            )
        if not _shows_picture(packet, stream):
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            raise MediaError(
                str(path), "no-timestamps", f"packet {num_packets - 1} has no time of its own"
            )
        pts.append(time)
        durations[time] = packet.duration or 0
    ordered = np.unique(np.array(pts, dtype=np.int64))
    num_repeated = len(pts) - len(ordered)
    if num_repeated > limits.max_damaged_share * len(pts):
        raise MediaError(
            str(path),
            "repeated-timestamps",
            f"{num_repeated} of {len(pts)} frames have the time of another",
        )
    last_duration = durations[int(ordered[-1])] if pts else 0
    return _Packets(ordered, last_duration, num_packets, num_keyframes)


def _shows_picture(packet: "Packet[VideoStream]", stream: VideoStream) -> bool:
    """Return whether a packet is seen: not hidden by an edit list, nor a mere reference."""
    if packet.is_discard:
        return False
    if stream.codec_context.codec.canonical_name == "vp8":
        return bool(bytes(packet)[0] & _VP8_SHOW_FRAME)
    return True


def _check_complete(path: Path, header: _Header, packets: _Packets) -> None:
    """Refuse a file that ends before the data its own index points at."""
    if packets.num_packets == 0:
        raise MediaError(str(path), "no-frames", "the video stream is empty")
    if header.index_end > path.stat().st_size:
        raise MediaError(
            str(path),
            "truncated",
            f"the index points {header.index_end - path.stat().st_size} bytes past the file's end",
        )


def _time(path: Path, header: _Header, packets: _Packets, limits: ProbeLimits) -> Timing:
    num_frames = len(packets.pts)
    if num_frames < limits.min_frames:
        raise MediaError(
            str(path),
            "too-few-frames",
            f"{num_frames} shown frames; at least {limits.min_frames} are needed",
        )
    timing = measure_timing(
        packets.pts,
        header.time_base,
        last_duration=packets.last_duration,
        claimed=header.claimed_rates,
    )
    if timing.fps > MAX_PLAUSIBLE_FPS:
        raise MediaError(str(path), "absurd-rate", f"{float(timing.fps):.6g} frames per second")
    if timing.duration > limits.max_duration_s:
        raise MediaError(
            str(path),
            "too-long",
            f"{float(timing.duration):.6g} s; at most {limits.max_duration_s:g} are taken",
        )
    return timing


class _Trial(NamedTuple):
    """What decoding gave."""

    first: VideoFrame | None
    num_bad: int  # packets refused, and pictures that came out damaged
    message: str  # of the first refusal


def _prove_decodable(path: Path, limits: ProbeLimits, *, num_packets: int) -> VideoFrame:
    """Decode as much as the limits ask for; return the first picture.

    Raises:
        MediaError: Nothing can be decoded ("undecodable"), or too much is damaged
            ("corrupt-packets").
    """
    trial = _try_decoding(path, limits.verify)
    if trial.first is None and limits.verify == "keyframes":
        trial = _try_decoding(path, "first-frame")  # an edit list may hide every keyframe
    if trial.first is None:
        why = trial.message or "the decoder says nothing"
        raise MediaError(
            str(path), "undecodable", f"none of {num_packets} packets gave a picture; {why}"
        )
    if trial.num_bad > limits.max_damaged_share * num_packets:
        raise MediaError(
            str(path),
            "corrupt-packets",
            f"{trial.num_bad} of {num_packets} packets are damaged; "
            f"{trial.message or 'pictures are incomplete'}",
        )
    return trial.first


def _try_decoding(path: Path, verify: Literal["first-frame", "keyframes", "all"]) -> _Trial:
    """Decode the first picture, all keyframes, or everything."""
    first: VideoFrame | None = None
    num_bad, message = 0, ""
    with open_container(path, reason="not-a-video") as container:
        stream = main_video_stream(container, path)
        stream.codec_context.thread_count = 1
        if verify == "keyframes":
            stream.codec_context.skip_frame = "NONKEY"
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except FFmpegError as err:
                num_bad, message = num_bad + 1, message or ffmpeg_words(err)
                continue
            num_bad += sum(frame.is_corrupt for frame in frames)
            first = first or next(iter(frames), None)
            if first is not None and verify == "first-frame":
                break
    return _Trial(first, num_bad, message)


def _rotation(frame: VideoFrame, path: Path) -> Rotation:
    """Return the clockwise turn that shows the picture upright, from its display matrix."""
    clockwise = -frame.rotation % 360  # FFmpeg's angle is counterclockwise
    for right_angle in _RIGHT_ANGLES:
        if clockwise == right_angle:
            return right_angle
    raise MediaError(str(path), "odd-rotation", f"the display matrix turns by {clockwise} degrees")
