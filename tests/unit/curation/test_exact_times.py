"""A clip shows each frame exactly when its source does, whatever keeps the source's time."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from filming import raw_folder, shot

from svd.config.curation import BankConfig, ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.clip.bank import FrameBank
from svd.curation.clip.stage import make_clips
from svd.media.decode import decode_frames, index_packets
from svd.types.base import read_records
from svd.types.video import Clip, RawVideo

NUM_FRAMES = 72
Times = Callable[[int], int]


def write(
    path: Path,
    times: Times,
    time_base: Fraction,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: float | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode two shots, frame n at tick times(n); a keyframe every 10 frames."""
    settings = {"g": "10", "sc_threshold": "0", "preset": "ultrafast"} | (options or {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=settings)
        stream.width, stream.height, stream.pix_fmt = 160, 90, pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        pictures = [*shot(1, 36, dx=2, width=160, height=90), *shot(2, 36, width=160, height=90)]
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = times(number), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_edit_list(path: Path, target: Path) -> Path:
    """Copy from the middle of a group of pictures: an edit list hides the frames before."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                packet.pts -= 5 * 512
                packet.dts -= 5 * 512
                out.mux(packet)
    return target


def jittered(number: int) -> int:
    return 40 * number + (17 * number * number) % 31  # ms, as a phone's


SOURCES: dict[str, Callable[[Path], Path]] = {
    "ntsc": lambda p: write(p / "a.mp4", lambda n: 1001 * n, Fraction(1, 24000)),
    "odd-rate": lambda p: write(p / "a.mp4", lambda n: 41561 * n, Fraction(1, 1_000_000)),
    "milliseconds": lambda p: write(p / "a.mkv", lambda n: round(n * 1001 / 24), Fraction(1, 1000)),
    "variable": lambda p: write(p / "a.mp4", jittered, Fraction(1, 1000), options={"bf": "0"}),
    "late-start": lambda p: write(p / "a.ts", lambda n: 126_000 + 3600 * n, Fraction(1, 90000)),
    "rotated": lambda p: write(p / "a.mp4", lambda n: 512 * n, Fraction(1, 12288), rotation=90),
    "ten-bit": lambda p: write(
        p / "a.mp4", lambda n: 512 * n, Fraction(1, 12288), codec="libx265",
        pix_fmt="yuv420p10le", options={"x265-params": "log-level=none:pools=none:scenecut=0"},
    ),
    "edit-list": lambda p: with_edit_list(
        write(p / "a.mp4", lambda n: 512 * n, Fraction(1, 12288), options={"bf": "0"}), p / "b.mp4"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("copies", [True, False], ids=["copied", "re-encoded"])
def test_clips_and_bank_keep_the_sources_times(kind: str, copies: bool, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    path = SOURCES[kind](tmp_path / "films")
    (video,) = raw_folder(tmp_path, [path]).values()
    shown = [timed.pts for timed in decode_frames(path)]
    assert len(shown) == video.probe.num_frames == (67 if kind == "edit-list" else NUM_FRAMES)
    make_clips(
        ClipConfig(
            min_clip_s=0.5, max_clip_s=8.0, reencode_preset="ultrafast",
            min_copy_share=0.1 if copies else 1.0, bank=BankConfig(short_side_px=64),
        ),
        engine=EngineConfig(num_workers=1),
        raw=tmp_path / "data" / "raw",
        out=tmp_path / "clips",
        state=tmp_path / "state",
    )  # fmt: skip
    clips = list(read_records(tmp_path / "clips" / "index.jsonl", Clip))
    assert len(clips) >= 2
    assert ("copy" if copies else "reencode") in {clip.span.method for clip in clips}
    for clip in clips:
        assert_times(tmp_path / "clips" / clip.uri, clip, shown)
    assert_bank(FrameBank(tmp_path / "clips" / "bank" / video.video_id), video, shown)


def assert_times(path: Path, clip: Clip, shown: list[int]) -> None:
    span = clip.span
    index = index_packets(path)
    found = [int(pts) * index.time_base for pts in np.sort(index.pts[index.is_shown])]
    wanted = shown[span.start_frame : span.stop_frame]
    assert found == [(pts - span.start_pts) * span.time_base for pts in wanted]
    assert (span.start_pts, clip.num_frames) == (wanted[0], len(wanted))
    assert clip.fps == clip.num_frames / ((span.stop_pts - span.start_pts) * span.time_base)


def assert_bank(bank: FrameBank, video: RawVideo, shown: list[int]) -> None:
    """The bank holds the first frame shown in every half second since the first frame."""
    base = video.probe.time_base
    cells = [(pts - shown[0]) * base * 2 // 1 for pts in shown]
    firsts = [n for n, cell in enumerate(cells) if n == 0 or cell != cells[n - 1]]
    assert bank.frames.tolist() == firsts
