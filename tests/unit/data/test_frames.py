from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svd.config.data import PictureSize
from svd.data.frames import cover, pick_pts, read_frames
from svd.data.motion import fit_motion_table, motion_bucket
from svd.errors import ConfigError, IntegrityError, MediaError, MissingInputError
from svd.media.encode import write_video
from svd.runtime.fingerprint import file_sha256
from svd.types.video import Clip, ClipSpan

SIZE = PictureSize(height=16, width=32)


def describe(path: Path, *, width: int, height: int, fps: Fraction, num_frames: int) -> Clip:
    return Clip(
        clip_id="clip",
        span=ClipSpan(
            video_id="video",
            start_frame=0,
            stop_frame=num_frames,
            start_pts=0,
            stop_pts=num_frames,
            time_base=1 / fps,
            method="copy",
        ),
        uri=path.name,
        sha256=file_sha256(path),
        width=width,
        height=height,
        fps=fps,
        num_frames=num_frames,
        duration_s=float(num_frames / fps),
    )


def ramp(num_frames: int, *, width: int = 64, height: int = 32) -> np.ndarray:
    """Grey frames; frame i has the level 4 i."""
    levels = 4 * np.arange(num_frames, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def levels_of(frames: np.ndarray) -> list[int]:
    return np.round(frames.mean(axis=(1, 2, 3)) / 4).astype(int).tolist()


@dataclass(frozen=True)
class Case:
    name: str
    pts: Sequence[int]
    fps: Fraction
    expected: Sequence[int]


@pytest.mark.parametrize(
    "case",
    [
        Case("24-to-8", range(9), Fraction(8), [0, 3, 6]),
        Case("same-rate", range(4), Fraction(24), [0, 1, 2, 3]),
        Case("24-to-10-takes-the-nearest", range(12), Fraction(10), [0, 2, 5, 7, 10]),
        Case("offset-start", range(100, 109), Fraction(8), [100, 103, 106]),
        Case("one-frame", [7], Fraction(8), [7]),
        Case("gap-repeats", [0, 1, 2, 12, 13], Fraction(8), [0, 2, 2, 12, 12]),
        Case("tie-takes-the-earlier", [0, 2, 4, 6], Fraction(24), [0, 0, 2, 2, 4, 4, 6]),
    ],
    ids=lambda case: case.name,
)
def test_frames_are_picked_by_time(case: Case) -> None:
    found = pick_pts(case.pts, time_base=Fraction(1, 24), fps=case.fps, max_frames=100)
    assert list(found) == list(case.expected)


@given(
    steps=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    fps=st.fractions(Fraction(1, 2), 60, max_denominator=1001),
)
@settings(deadline=None)
def test_every_pick_is_the_nearest_frame(steps: list[int], fps: Fraction) -> None:
    pts = np.cumsum([5, *steps]).tolist()
    base = Fraction(1, 90)
    picked = pick_pts(pts, time_base=base, fps=fps, max_frames=50)
    assert 1 <= len(picked) <= 50
    for k, chosen in enumerate(picked):
        wanted = Fraction(k) / fps
        nearest = min(abs((one - pts[0]) * base - wanted) for one in pts)
        assert abs((chosen - pts[0]) * base - wanted) == nearest


def test_ntsc_rates_do_not_drift() -> None:
    fps = Fraction(24000, 1001)
    pts = [round(i / fps * 90000) for i in range(24 * 60)]
    picked = pick_pts(pts, time_base=Fraction(1, 90000), fps=fps / 3, max_frames=10_000)
    assert [pts.index(one) for one in picked] == list(range(0, 24 * 60, 3))


def test_clip_is_read_at_the_rate_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, ramp(24), 24, crf=0)
    clip = describe(path, width=64, height=32, fps=Fraction(24), num_frames=24)
    found = read_frames(path, clip, fps=Fraction(8), sizes=[SIZE], max_frames=5)
    assert found.fps == 8
    assert found.by_size[0].shape == (5, 3, 16, 32)
    assert levels_of(found.by_size[0]) == [0, 3, 6, 9, 12]


def test_clip_of_a_lower_rate_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, ramp(5), 5, crf=0)
    clip = describe(path, width=64, height=32, fps=Fraction(5), num_frames=5)
    found = read_frames(path, clip, fps=Fraction(8), sizes=[SIZE], max_frames=50)
    assert found.fps == 5
    assert levels_of(found.by_size[0]) == [0, 1, 2, 3, 4]


def test_centre_is_kept_and_sizes_share_one_decode(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    pictures = np.zeros((3, 64, 64, 3), np.uint8)
    pictures[:, 16:48] = 255  # a 16x32 crop of the 64x64 picture at half size sees only this
    write_video(path, pictures, 8, crf=0)
    clip = describe(path, width=64, height=64, fps=Fraction(8), num_frames=3)
    square = PictureSize(height=32, width=32)
    found = read_frames(path, clip, fps=Fraction(8), sizes=[SIZE, square], max_frames=50)
    assert found.by_size[0].min() > 200
    assert found.by_size[1][:, :, 0].max() < 50
    assert len(found.by_size[0]) == len(found.by_size[1]) == 3


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotation_is_applied(media, clockwise: int) -> None:
    path = media.timed("phone.mp4", range(0, 400, 40), rotation=-clockwise)
    upright = (96, 64) if clockwise % 180 == 0 else (64, 96)
    clip = describe(path, width=upright[0], height=upright[1], fps=Fraction(25), num_frames=10)
    size = PictureSize(height=upright[1], width=upright[0])
    found = read_frames(path, clip, fps=Fraction(25), sizes=[size], max_frames=1).by_size[0][0]
    corners = {  # the bright square is top left in the stored picture
        0: found[:, :8, :8],
        90: found[:, :8, -8:],
        180: found[:, -8:, -8:],
        270: found[:, -8:, :8],
    }
    assert max(corners, key=lambda turn: corners[turn].mean()) == clockwise
    assert corners[clockwise].mean() > 230


def test_red_stays_red(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    pictures = np.zeros((2, 32, 64, 3), np.uint8)
    pictures[..., 0] = 255
    write_video(path, pictures, 8, crf=0)
    clip = describe(path, width=64, height=32, fps=Fraction(8), num_frames=2)
    red, green, blue = (
        read_frames(path, clip, fps=Fraction(8), sizes=[SIZE], max_frames=1)
        .by_size[0][0]
        .reshape(3, -1)
        .mean(axis=1)
    )
    assert red > 245
    assert max(green, blue) < 10


def test_clip_with_damaged_packets_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    noise = np.random.default_rng(0).integers(0, 255, (24, 64, 64, 3), np.uint8)
    write_video(path, noise, 24)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    clip = describe(path, width=64, height=64, fps=Fraction(24), num_frames=24)
    with pytest.raises(MediaError, match=r"incomplete: \d+ of \d+ wanted frames"):
        read_frames(path, clip, fps=Fraction(24), sizes=[SIZE], max_frames=99)


def test_other_bytes_than_the_clip_was_made_of_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, ramp(5), 5)
    clip = describe(path, width=64, height=32, fps=Fraction(5), num_frames=5)
    write_video(path, ramp(6), 5)
    with pytest.raises(IntegrityError, match="its index names"):
        read_frames(path, clip, fps=Fraction(8), sizes=[SIZE], max_frames=5)
    path.unlink()
    with pytest.raises(MissingInputError, match="svd clip"):
        read_frames(path, clip, fps=Fraction(8), sizes=[SIZE], max_frames=5)


@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    want_w=st.integers(1, 128),
    want_h=st.integers(1, 128),
)
def test_cover_covers_and_no_more(width: int, height: int, want_w: int, want_h: int) -> None:
    size = PictureSize(height=8 * want_h, width=8 * want_w)
    found_w, found_h = cover(width, height, size)
    assert found_w >= size.width
    assert found_h >= size.height
    assert found_w == size.width or found_h == size.height


def test_buckets_hold_equal_shares_of_the_training_clips() -> None:
    scores = np.random.default_rng(0).lognormal(size=25_600).tolist()
    table = fit_motion_table(scores, scorer="flow 1")
    counts = np.bincount([motion_bucket(table, score) for score in scores], minlength=256)
    assert len(counts) == 256
    assert abs(counts - 100).max() <= 1


def test_median_clip_is_in_the_middle_bucket_and_the_ends_are_the_ends() -> None:
    table = fit_motion_table(list(range(1001)), scorer="flow 1")
    assert motion_bucket(table, 500) == 128
    assert motion_bucket(table, 499) == 127
    assert motion_bucket(table, -1) == 0
    assert motion_bucket(table, 1e9) == 255


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30))
@settings(deadline=None)
def test_more_motion_is_never_a_lower_bucket(scores: list[float]) -> None:
    table = fit_motion_table(scores, scorer="flow 1")
    buckets = [motion_bucket(table, score) for score in sorted(scores)]
    assert buckets == sorted(buckets)


def test_no_scores_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="no training clip has a motion score"):
        fit_motion_table([], scorer="flow 1")
