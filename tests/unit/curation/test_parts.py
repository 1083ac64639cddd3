"""Clips hold exactly the planned frames, whoever reads them back."""

import hashlib
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from filming import film, shot

from svd.config.curation import ClipConfig
from svd.curation.clip.clips import copy_points, plan_clips
from svd.curation.clip.cuts import Shot
from svd.media.decode import PictureMaker, decode_frames, index_packets
from svd.media.parts import Part, copy_parts, encode_parts
from svd.media.probe import probe_video
from svd.types.video import ClipSpan


def pictures(path: Path) -> list[np.ndarray]:
    return [timed.frame.to_ndarray(format="rgb24") for timed in decode_frames(path)]


def opencv_count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def write(path: Path, num_frames: int, *, rate: Fraction, options: dict[str, str]) -> Path:
    """Encode with B-frames and, if asked for, open groups of pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for pixels in shot(3, num_frames, dx=3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def spans_of(path: Path, shots: list[Shot], share: float = 0.0) -> tuple[ClipSpan, ...]:
    index = index_packets(path)
    pts = np.array([timed.pts for timed in decode_frames(path)])
    return plan_clips(
        shots,
        copy_points(index, pts),
        pts,
        ClipConfig(min_clip_s=0.2, max_clip_s=2.0, min_copy_share=share),
        video_id="v",
        time_base=index.time_base,
        end_pts=int(2 * pts[-1] - pts[-2]),
    ).spans


def parts_of(spans: tuple[ClipSpan, ...], folder: Path) -> list[Part]:
    return [
        Part(span.start_pts, span.stop_pts, folder / f"{span.start_frame}.mp4") for span in spans
    ]


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001)], ids=["24", "ntsc"])
@pytest.mark.parametrize(
    "structure",
    [
        {"g": "12", "bf": "3", "sc_threshold": "0"},
        {"g": "12", "bf": "3", "sc_threshold": "0", "x264-params": "open-gop=1"},
        {"g": "250", "bf": "0"},
        {"g": "1"},
    ],
    ids=["b-frames", "open-groups", "one-keyframe", "all-keyframes"],
)
def test_copies_hold_exactly_the_planned_frames(
    tmp_path: Path, rate: Fraction, structure: dict[str, str]
) -> None:
    path = write(tmp_path / "source.mp4", 90, rate=rate, options=structure)
    source = pictures(path)
    spans = spans_of(path, [Shot(0, 31), Shot(31, 60), Shot(60, 90)])
    copied = tuple(span for span in spans if span.method == "copy")
    assert copied
    copy_parts(path, parts_of(copied, tmp_path))
    for span in copied:
        clip = tmp_path / f"{span.start_frame}.mp4"
        expected = source[span.start_frame : span.stop_frame]
        found = pictures(clip)
        assert len(found) == len(expected) == opencv_count(clip)
        np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_copied_times_start_at_zero_and_keep_their_distances(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 60, rate=Fraction(30000, 1001), options={"g": "15", "bf": "2"})
    spans = tuple(s for s in spans_of(path, [Shot(10, 60)]) if s.method == "copy")
    copy_parts(path, parts_of(spans, tmp_path))
    index = index_packets(tmp_path / f"{spans[0].start_frame}.mp4")
    times = [(pts - index.pts.min()) * index.time_base for pts in sorted(index.pts[index.is_shown])]
    assert times == [n * Fraction(1001, 30000) for n in range(len(times))]
    assert index.pts[index.is_shown].min() * index.time_base == 0


def test_equal_parts_have_equal_bytes(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", shot(1, 48), gop=12)
    index, probe = index_packets(path), probe_video(path).probe
    sums = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        part = Part(0, 24 * 512, tmp_path / name / "copy.mp4")
        again = Part(5 * 512, 30 * 512, tmp_path / name / "encode.mp4")
        copy_parts(path, [part])
        encode_parts(
            path,
            [again],
            index=index,
            width=probe.width,
            height=probe.height,
            rotation=0,
            crf=20,
            preset="ultrafast",
        )
        digests = [hashlib.sha256(p.target.read_bytes()).hexdigest() for p in (part, again)]
        sums.add(tuple(digests))
    assert len(sums) == 1


@pytest.mark.parametrize("gop", [12, 500], ids=["many-keyframes", "one-keyframe"])
def test_reencoded_parts_hold_the_planned_frames(tmp_path: Path, gop: int) -> None:
    path = film(tmp_path / "a.mp4", shot(2, 70, dx=4), gop=gop, scenecut=False)
    source = pictures(path)
    encode_parts(
        path,
        [Part(33 * 512, 60 * 512, tmp_path / "clip.mp4")],
        index=index_packets(path),
        width=320,
        height=180,
        rotation=0,
        crf=5,
        preset="veryfast",
    )
    found = pictures(tmp_path / "clip.mp4")
    assert len(found) == 27 == opencv_count(tmp_path / "clip.mp4")
    for mine, original in zip(found, source[33:60], strict=True):
        assert np.abs(mine.astype(int) - original).mean() < 3
    probe = probe_video(tmp_path / "clip.mp4").probe
    assert (probe.fps, probe.duration_s) == (24, pytest.approx(27 / 24))


def test_reencoding_applies_rotation_and_evens_odd_sides(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    frames = shot(5, 12)
    frames[:, :40] = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.set_display_rotation(-90)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    probe = probe_video(path).probe
    encode_parts(
        path,
        [Part(0, 12 * 512, tmp_path / "clip.mp4")],
        index=index_packets(path),
        width=probe.width + 1,
        height=probe.height,
        rotation=probe.rotation,
        crf=10,
        preset="veryfast",
    )
    clip = probe_video(tmp_path / "clip.mp4").probe
    assert (clip.width, clip.height, clip.rotation) == (180, 320, 0)
    upright = PictureMaker(width=180, height=320, rotation=probe.rotation)
    wanted = upright(next(decode_frames(path)).frame)[..., ::-1]
    assert np.abs(pictures(tmp_path / "clip.mp4")[0].astype(int) - wanted).mean() < 4


def test_a_copied_clip_keeps_the_rotation_of_its_source(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"g": "6"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.set_display_rotation(90)
        for pixels in shot(5, 24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    copy_parts(path, [Part(0, 12 * 512, tmp_path / "clip.mp4")])
    assert probe_video(tmp_path / "clip.mp4").probe.rotation == probe_video(path).probe.rotation


def test_varying_frame_durations_survive_both_ways(tmp_path: Path) -> None:
    times_ms = [0, 40, 80, 200, 240, 280, 600, 640, 680, 900, 940, 980]
    path = tmp_path / "vfr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "g": "3"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for time_ms, pixels in zip(times_ms, shot(4, 12, dx=2), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    index = index_packets(path)
    copy_parts(path, [Part(200, 900, tmp_path / "copy.mp4")])
    encode_parts(
        path,
        [Part(240, 900, tmp_path / "encode.mp4")],
        index=index,
        width=320,
        height=180,
        rotation=0,
        crf=20,
        preset="ultrafast",
    )
    for name, wanted in (
        ("copy", [0, 40, 80, 400, 440, 480]),
        ("encode", [0, 40, 360, 400, 440]),
    ):
        clip = index_packets(tmp_path / f"{name}.mp4")
        assert [float(p * clip.time_base * 1000) for p in sorted(clip.pts)] == wanted


def write_av1(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=24, options={"preset": "12", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for pixels in shot(6, 48, dx=2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def test_av1_is_copied_whichever_library_decodes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    # In a process of its own: as root, SVT-AV1 gives its caller a real-time priority for good.
    with get_context("spawn").Pool(1) as pool:
        pool.apply(write_av1, (path,))
    (span,) = spans_of(path, [Shot(10, 36)])
    assert (span.method, span.start_frame, span.stop_frame) == ("copy", 12, 36)
    copy_parts(path, parts_of((span,), tmp_path))
    found = pictures(tmp_path / "12.mp4")
    assert len(found) == 24
    assert all(np.array_equal(a, b) for a, b in zip(found, pictures(path)[12:36], strict=True))


def with_sound(path: Path, codec: str, seconds: int = 4) -> Path:
    """Write a pan, and a tone whose pitch rises every second."""
    rate = 48_000
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24, options={"g": "12", "bf": "2"})
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for pixels in shot(6, 24 * seconds, dx=2):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        size = sound.codec_context.frame_size or 1024
        for first in range(0, rate * seconds, size):
            time = (first + np.arange(size)) / rate
            wave = (0.3 * np.sin(2 * np.pi * 300 * (1 + first // rate) * time)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def pitches(path: Path) -> list[int]:
    """Return the pitch of each tenth of a second of a clip's sound, in multiples of 300 Hz."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    wave = np.concatenate(frames)
    parts = wave[: len(wave) // 4800 * 4800].reshape(-1, 4800)
    return [round(int(np.abs(np.fft.rfft(part)).argmax()) * 10 / 300) for part in parts]


@pytest.mark.parametrize("method", ["copy", "encode"])
def test_sound_is_kept_in_step_and_takes_no_frame_away(tmp_path: Path, method: str) -> None:
    path = with_sound(tmp_path / "a.mp4", "aac")
    index = index_packets(path)
    second = int(1 / index.time_base)
    parts = [
        Part(0, second, tmp_path / "first.mp4"),
        Part(2 * second, 3 * second, tmp_path / "third.mp4"),
    ]
    if method == "copy":
        copy_parts(path, parts, keep_sound=True)
    else:
        encode_parts(
            path,
            parts,
            index=index,
            width=320,
            height=180,
            rotation=0,
            crf=20,
            preset="ultrafast",
            keep_sound=True,
        )
    for part, pitch in zip(parts, (1, 3), strict=True):
        assert len(pictures(part.target)) == 24 == opencv_count(part.target)
        heard = pitches(part.target)
        assert 9 <= len(heard) <= 11
        assert set(heard[1:-1]) == {pitch}


def test_without_the_wish_there_is_no_sound(tmp_path: Path) -> None:
    path = with_sound(tmp_path / "a.mp4", "aac", seconds=2)
    second = int(1 / index_packets(path).time_base)
    copy_parts(path, [Part(0, second, tmp_path / "clip.mp4")])
    assert not probe_video(tmp_path / "clip.mp4").probe.has_audio


def test_sound_that_an_mp4_cannot_hold_is_left_out(tmp_path: Path) -> None:
    path = with_sound(tmp_path / "a.mkv", "pcm_f32le", seconds=2)
    copy_parts(path, [Part(0, 1000, tmp_path / "clip.mp4")], keep_sound=True)
    assert not probe_video(tmp_path / "clip.mp4").probe.has_audio
    assert len(pictures(tmp_path / "clip.mp4")) == 24
