from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from filming import film, shot
from scenedetect import FrameTimecode, StatsManager
from scenedetect.detectors import ContentDetector

from svd.config.curation import BankConfig, CutConfig
from svd.curation.clip.runs import Segment, plan_runs
from svd.curation.clip.scan import scan_segments
from svd.curation.clip.track import (
    SegmentScan,
    join_tracks,
    load_segment,
    sample_cell,
    save_segment,
)
from svd.errors import MediaError
from svd.media.decode import PictureMaker, decode_frames, index_packets
from svd.media.probe import probe_video

WHOLE = Segment(start_pts=None, stop_pts=None, previous_pts=None)


def scan(path: Path, segment: Segment = WHOLE, **bank: int) -> SegmentScan:
    return scan_all(path, [segment], **bank)[0]


def scan_all(path: Path, segments: Sequence[Segment], **bank: int) -> list[SegmentScan]:
    probe = probe_video(path).probe
    return list(scan_segments(path, segments, probe, cuts=CutConfig(), bank=BankConfig(**bank)))


@pytest.fixture(scope="module")
def three_shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "shots.mp4"
    return film(path, shot(1, 40, dx=2), shot(2, 45), shot(3, 35, dx=-3), gop=24)


def remuxed(path: Path, target: Path) -> Path:
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


def assert_join(whole: SegmentScan, parts: Sequence[SegmentScan]) -> None:
    joined = join_tracks([part.track for part in parts])
    for name, values in whole.track.dump().items():
        np.testing.assert_array_equal(values, joined.dump()[name], err_msg=name)
    assert tuple(frame for part in parts for frame in part.frames) == whole.frames


@pytest.mark.parametrize("segment_s", [1.1, 2.0])
def test_segments_join_to_what_one_pass_gives(three_shots: Path, segment_s: float) -> None:
    runs = plan_runs(index_packets(three_shots), segment_s=segment_s)
    assert len(runs) > 1
    parts = [part for run in runs for part in scan_all(three_shots, run)]
    assert_join(scan(three_shots), parts)


@pytest.mark.parametrize("name", ["one.mp4", "one.ts"])
def test_a_video_where_decoding_starts_only_once_is_one_run_of_many_segments(
    tmp_path: Path, name: str
) -> None:
    path = film(tmp_path / "one.mp4", shot(1, 60, dx=2), shot(2, 60), gop=500, scenecut=False)
    path = path if path.name == name else remuxed(path, tmp_path / name)
    (run,) = plan_runs(index_packets(path), segment_s=1.2)
    assert len(run) == 4
    assert (run[0].start_pts, run[-1].stop_pts) == (None, None)
    assert_join(scan(path), scan_all(path, run))


def test_a_segment_survives_storage(three_shots: Path, tmp_path: Path) -> None:
    before = scan(three_shots)
    save_segment(tmp_path / "a.npz", before)
    save_segment(tmp_path / "b.npz", before)
    after = load_segment(tmp_path / "a.npz")
    assert after.frames == before.frames
    np.testing.assert_array_equal(after.track.thumbs, before.track.thumbs)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_scores_are_those_of_pyscenedetect(three_shots: Path) -> None:
    track = scan(three_shots).track
    probe = probe_video(three_shots).probe
    scale = 256 / probe.width
    picture = PictureMaker(
        width=256, height=round(probe.height * scale), interpolation="FAST_BILINEAR"
    )
    detector, stats = ContentDetector(), StatsManager()
    detector.stats_manager = stats
    expected = []
    for number, timed in enumerate(decode_frames(three_shots)):
        timecode = FrameTimecode(number, fps=24.0)
        detector.process_frame(timecode, picture(timed.frame))
        if number:
            expected.append(stats.get_metrics(timecode, ["content_val"])[0])
    np.testing.assert_allclose(track.native_score, expected, rtol=1e-5)


def test_samples_are_chosen_by_time_where_the_frame_rate_varies(tmp_path: Path) -> None:
    # 3 s at 30 fps, then 3 s at 5 fps: by count most samples would fall into the first half.
    times_ms = [*range(0, 3000, 33), *range(3000, 6000, 200)]
    path = tmp_path / "vfr.mkv"
    frames = shot(4, len(times_ms), dx=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for time_ms, pixels in zip(times_ms, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sampled = [frame.pts for frame in scan(path).frames]
    wanted = [min(t for t in times_ms if t >= 500 * k) for k in range(12)]
    assert sampled == wanted


def test_a_sample_is_the_first_frame_of_its_cell_whatever_the_time_base() -> None:
    ntsc = Fraction(1001, 30000)
    cells = [sample_cell(n, start_pts=0, time_base=ntsc, rate_hz=2) for n in range(61)]
    assert [n for n in range(1, 61) if cells[n] != cells[n - 1]] == [15, 30, 45, 60]


def test_the_bank_is_upright(tmp_path: Path) -> None:
    frames = shot(5, 12)
    frames[:, :40, :] = 0  # the top of the stored picture is dark
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.set_display_rotation(-90)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    probe = probe_video(path).probe
    assert (probe.width, probe.height) == (180, 320)
    jpeg = np.frombuffer(scan(path).frames[0].jpeg, dtype=np.uint8)
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture.shape[0] > picture.shape[1]
    side = picture[:, -15:] if probe.rotation == 90 else picture[:, :15]
    assert side.mean() < 10 < picture.mean()


def test_stills_are_larger_and_fewer(three_shots: Path) -> None:
    frames = scan(three_shots, short_side_px=90, still_short_side_px=180, still_every=2).frames
    assert [frame.still is not None for frame in frames] == [k % 2 == 0 for k in range(len(frames))]
    still = cv2.imdecode(np.frombuffer(frames[0].still or b"", np.uint8), cv2.IMREAD_COLOR)
    small = cv2.imdecode(np.frombuffer(frames[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert (still.shape, small.shape) == ((180, 320, 3), (90, 160, 3))


def test_damage_costs_the_damaged_frames_only(three_shots: Path, tmp_path: Path) -> None:
    data = bytearray(three_shots.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    probe = probe_video(three_shots).probe
    (damaged,) = scan_segments(path, [WHOLE], probe, cuts=CutConfig(), bank=BankConfig())
    assert 90 < len(damaged.track.pts) <= 120  # at most one group of pictures is lost
    assert damaged.num_bad_packets + damaged.num_damaged_frames > 0


def test_a_stretch_that_does_not_decode_is_an_empty_segment(three_shots: Path) -> None:
    probe = probe_video(three_shots).probe
    beyond = 10_000_000
    run = [Segment(None, beyond, None), Segment(beyond, None, beyond - 1)]
    first, second = scan_segments(three_shots, run, probe, cuts=CutConfig(), bank=BankConfig())
    assert (len(first.track.pts), len(second.track.pts)) == (120, 0)
    assert_join(scan(three_shots), [first, second])


def test_a_file_of_noise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(MediaError):
        index_packets(path)
