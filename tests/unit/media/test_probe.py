import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from svd.config.ingest import ProbeLimits
from svd.errors import MediaError
from svd.media.probe import probe_video


def reason_of(path: Path, limits: ProbeLimits | None = None) -> str:
    with pytest.raises(MediaError) as caught:
        probe_video(path, limits)
    return caught.value.reason


def decoded_pts(path: Path) -> list[int]:
    with av.open(path) as container:
        return [frame.pts for frame in container.decode(video=0)]


def test_a_plain_video_is_described_exactly(media) -> None:
    path = media.video(num_frames=30, fps=Fraction(30000, 1001), gop=10)
    probed = probe_video(path)
    probe = probed.probe
    assert probed.suffix == ".mp4"
    assert (probe.codec, probe.pixel_format) == ("h264", "yuv420p")
    assert (probe.width, probe.height, probe.rotation) == (96, 64, 0)
    assert (probe.fps, probe.is_vfr, probe.num_frames) == (Fraction(30000, 1001), False, 30)
    assert (probe.num_keyframes, probe.start_pts, probe.has_audio) == (3, 0, False)
    assert probe.duration_s == pytest.approx(1.001)


@pytest.mark.parametrize("name", ["v.webm", "v.mkv"])
def test_millisecond_ticks_do_not_blur_the_rate(media, name: str) -> None:
    probe = probe_video(media.video(name, num_frames=60, fps=24)).probe
    assert (probe.fps, probe.is_vfr, probe.num_frames) == (24, False, 60)
    assert probe.duration_s == 2.5


def test_sound_beside_the_video_is_seen(media) -> None:
    path = media.timed("v.mp4", range(0, 400, 40), with_audio=True)
    assert probe_video(path).probe.has_audio


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_a_rotated_phone_video_has_the_size_it_is_shown_in(media, clockwise: int) -> None:
    path = media.timed("v.mp4", range(0, 400, 40), rotation=-clockwise)
    probe = probe_video(path).probe
    assert probe.rotation == clockwise
    # OpenCV turns frames upright by the same matrix: an oracle that is not ours.
    done, upright = cv2.VideoCapture(str(path)).read()
    assert done
    assert (probe.width, probe.height) == (upright.shape[1], upright.shape[0])
    with av.open(path) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="bgr24")
    ours = np.rot90(stored, k=-(clockwise // 90))
    assert np.abs(ours.astype(int) - upright).mean() < 5


def test_a_rotation_that_is_no_right_angle_is_refused(media) -> None:
    path = media.timed("v.mp4", range(0, 400, 40), rotation=30)
    assert reason_of(path) == "odd-rotation"


def test_a_variable_frame_rate_keeps_its_times(media) -> None:
    pts = [0, 33, 66, 120, 153, 300, 333]
    path = media.timed("v.mkv", pts)
    probe = probe_video(path).probe
    assert probe.is_vfr
    assert probe.fps == Fraction(6 * 1000, 333)
    assert decoded_pts(path) == pts


def test_b_frames_do_not_change_the_times(media) -> None:
    path = media.timed("v.mp4", range(0, 1200, 40), options={"bf": "3"})
    probe = probe_video(path).probe
    assert (probe.fps, probe.num_frames, probe.is_vfr) == (25, 30, False)


def test_frames_that_an_edit_list_hides_are_not_counted(media) -> None:
    keep = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    path = media.timed("v.mp4", range(-200, 400, 40), muxer=keep, options={"g": "100"})
    probe = probe_video(path).probe
    shown = decoded_pts(path)
    assert len(shown) == 10
    assert (probe.num_frames, probe.start_pts) == (len(shown), shown[0])


def test_ten_bit_video_is_known_as_such(media) -> None:
    path = media.timed("v.mkv", range(0, 400, 40), codec="ffv1", pix_fmt="yuv420p10le")
    assert probe_video(path).probe.pixel_format == "yuv420p10le"


def test_invisible_vp8_frames_are_not_counted(media) -> None:
    path = media.folder / "altref.webm"
    with av.open(media.video("v.webm")) as reader, av.open(path, "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for index, packet in enumerate(p for p in reader.demux(video=0) if p.size):
            data, time = bytearray(bytes(packet)), packet.pts
            packet.stream = stream
            writer.mux(packet)
            if index == 5:  # the same again as a reference that is not shown
                data[0] &= 0xEF
                hidden = av.Packet(bytes(data))
                hidden.stream, hidden.time_base = stream, Fraction(1, 1000)
                hidden.pts = hidden.dts = time + 5
                writer.mux(hidden)
    with av.open(path) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 13
    assert len(decoded_pts(path)) == 12
    probe = probe_video(path).probe
    assert (probe.num_frames, probe.fps, probe.is_vfr) == (12, 24, False)


def test_the_suffix_follows_the_bytes_not_the_name(media) -> None:
    path = media.video("v.webm")
    renamed = path.rename(media.folder / "v.mp4")
    assert probe_video(renamed).suffix == ".mkv"


@pytest.mark.parametrize(
    "name", ["-i.mp4", "http:x.mp4", "%03d.mp4", "a\nb.mp4", "\u202e4pm.mp4", "no-suffix"]
)
def test_a_name_is_only_a_name(media, name: str) -> None:
    path = media.video("v.mp4").rename(media.folder / name)
    assert probe_video(path).probe.num_frames == 12


def test_a_name_that_is_no_utf8_can_be_probed(media) -> None:
    strange = Path(os.fsdecode(os.fsencode(media.folder) + b"/\xff\xfe.mp4"))
    media.video("v.mp4").rename(strange)
    assert probe_video(strange).probe.num_frames == 12


def test_an_empty_file(media) -> None:
    assert reason_of(media.bytes_of("v.mp4", b"")) == "empty-file"


def test_a_file_that_is_not_there(media) -> None:
    assert reason_of(media.folder / "absent.mp4") == "unreadable"


@pytest.mark.parametrize(
    "text",
    [
        b"this is not a video\n",
        "Zw\u00f6lf Boxk\u00e4mpfer".encode() * 1000,
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"<html>404</html>",
    ],
    ids=["words", "umlauts", "playlist", "concat", "html"],
)
def test_text_named_mp4(media, text: bytes) -> None:
    with pytest.raises(MediaError) as caught:
        probe_video(media.bytes_of("v.mp4", text))
    assert (caught.value.reason, caught.value.detail) == ("not-a-video", "the file is text")


def test_noise_named_mp4(media) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes()
    assert reason_of(media.bytes_of("v.mp4", noise)) == "not-a-video"


@pytest.mark.parametrize("fmt", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif"])
def test_a_picture_named_mp4(media, fmt: str) -> None:
    assert reason_of(media.image("v.mp4", fmt)) == "image"


def test_sound_alone(media) -> None:
    with pytest.raises(MediaError) as caught:
        probe_video(media.audio_only())
    assert (caught.value.reason, caught.value.detail) == ("no-video-stream", "the file holds audio")


def test_a_single_picture_is_no_video(media) -> None:
    assert reason_of(media.video(num_frames=1)) == "too-few-frames"


def test_a_file_cut_short_before_its_index(media) -> None:
    path = media.timed("v.mp4", range(0, 2000, 40))  # the index comes last
    path.write_bytes(path.read_bytes()[:-900])
    assert reason_of(path) == "truncated"


def test_a_file_cut_short_after_its_index(media) -> None:
    path = media.video(num_frames=40)  # the index comes first
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(MediaError) as caught:
        probe_video(path)
    assert caught.value.reason == "truncated"
    assert caught.value.detail == "the last 300 bytes of its 'mdat' box are missing"


def test_an_index_that_points_past_the_end_is_found(media) -> None:
    path = media.video(num_frames=40)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") - 4
    data[start : start + 4] = bytes(4)  # size 0: the box goes on to the end, wherever that is
    path.write_bytes(data[:-300])
    with pytest.raises(MediaError) as caught:
        probe_video(path)
    assert caught.value.reason == "truncated"
    assert caught.value.detail == "the index points 300 bytes past the file's end"


@pytest.mark.parametrize("rubbish", [b"\x00", b"rubbish at the end", b"\xff" * 40])
def test_rubbish_after_a_whole_file_does_no_harm(media, rubbish: bytes) -> None:
    path = media.video()
    path.write_bytes(path.read_bytes() + rubbish)
    assert probe_video(path).probe.num_frames == 12


def test_a_fragmented_file_is_whole_or_truncated(media) -> None:
    muxer = {"movflags": "frag_keyframe+empty_moov"}
    path = media.timed("v.mp4", range(0, 1200, 40), options={"g": "5"}, muxer=muxer)
    assert probe_video(path).probe.num_frames == 30
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"mdat") + 10])
    assert reason_of(path) == "truncated"


@pytest.mark.parametrize(
    ("name", "codec"), [("v.webm", "libvpx"), ("v.mkv", "libx264"), ("v.avi", "mpeg4")]
)
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_container_that_declares_its_size_is_found_cut_short(media, name, codec, share) -> None:
    path = media.timed(name, range(20), time_base=Fraction(1, 25), codec=codec)
    assert probe_video(path).probe.num_frames == 20
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert reason_of(path) == "truncated"


def test_corrupt_packets_are_found(media) -> None:
    path = media.video(num_frames=60, gop=5)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 2000
    data[start : start + 3000] = np.random.default_rng(1).integers(0, 256, 3000, np.uint8).tobytes()
    path.write_bytes(data)
    assert reason_of(path, ProbeLimits(verify="all")) == "corrupt-packets"
    assert probe_video(path, ProbeLimits(verify="first-frame")).probe.num_frames == 60
    tolerant = ProbeLimits(verify="all", max_damaged_share=1.0)
    assert probe_video(path, tolerant).probe.num_frames == 60


def test_nothing_decodable_is_no_video(media) -> None:
    path = media.video(num_frames=20)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    assert reason_of(path) == "undecodable"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ProbeLimits(max_side=80), "too-large-picture"),
        (ProbeLimits(min_side=65), "too-small-picture"),
        (ProbeLimits(max_frames=11), "too-many-frames"),
        (ProbeLimits(min_frames=13), "too-few-frames"),
        (ProbeLimits(max_duration_s=0.4), "too-long"),
        (ProbeLimits(max_size_bytes=100), "too-large-file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_exceeds_a_limit_is_refused(media, limits: ProbeLimits, reason: str) -> None:
    assert reason_of(media.video(num_frames=12), limits) == reason


@pytest.mark.parametrize("size", ["W16384 H16384", "W0 H0", "W1 H1", "W2147483647 H2"])
def test_an_absurd_header_costs_nothing(media, size: str) -> None:
    header = f"YUV4MPEG2 {size} F25:1 Ip A1:1 C420jpeg\nFRAME\n".encode()
    path = media.bytes_of("v.y4m", header + b"\x80\xff" * 4000)
    assert reason_of(path) in {"too-large-picture", "too-small-picture", "not-a-video"}


def test_cover_art_is_no_video(media) -> None:
    sound = media.audio_only("sound.m4a")
    cover = media.image("cover.jpg", ".jpg").read_bytes()
    path = media.folder / "covered.m4a"
    with av.open(sound) as reader, av.open(path, "w", format="mp4") as writer:
        source = reader.streams.audio[0]
        audio = writer.add_stream_from_template(source)
        picture = writer.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts = picture, 0, 0
        packet.is_keyframe = True
        writer.mux(packet)
        for packet in reader.demux(source):
            if packet.dts is not None:
                packet.stream = audio
                writer.mux(packet)
    assert reason_of(path) == "no-video-stream"
