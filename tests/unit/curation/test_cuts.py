from pathlib import Path

import numpy as np
import pytest
from filming import dissolve, fade_through_black, film, shot

from svd.config.curation import BankConfig, CutConfig
from svd.curation.clip.cuts import detect_cuts, shots_between
from svd.curation.clip.detectors import adaptive_hits, content_hits, threshold_hits
from svd.curation.clip.runs import Segment
from svd.curation.clip.scan import scan_segments
from svd.curation.clip.track import FrameTrack
from svd.media.probe import probe_video
from svd.types.video import Cut

WHOLE = Segment(start_pts=None, stop_pts=None, previous_pts=None)


def track_of(path: Path) -> FrameTrack:
    probe = probe_video(path).probe
    return next(scan_segments(path, [WHOLE], probe, cuts=CutConfig(), bank=BankConfig())).track


def cuts_of(path: Path) -> tuple[Cut, ...]:
    return detect_cuts(track_of(path), CutConfig(), video_id="v", fps=24.0)[0]


def kinds(cuts: tuple[Cut, ...]) -> list[str]:
    return [cut.kind for cut in cuts]


def test_hard_cuts_are_found_on_their_frame(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", shot(1, 40, dx=2), shot(2, 31), shot(3, 50, dx=-5))
    found = cuts_of(path)
    assert [(cut.kind, cut.start_frame, cut.stop_frame) for cut in found] == [
        ("hard", 40, 40),
        ("hard", 71, 71),
    ]
    assert all(cut.score > 15 for cut in found)


def test_a_second_cut_soon_after_the_first_is_not_hidden(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", shot(1, 40), shot(2, 6), shot(3, 40))
    assert [cut.start_frame for cut in cuts_of(path)] == [40, 46]


def test_motion_is_no_cut(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", shot(1, 96, dx=12), crf=20)
    assert cuts_of(path) == ()


@pytest.mark.parametrize("dx", [0.0, 3.0, -8.0], ids=["static", "pan", "fast-pan"])
@pytest.mark.parametrize("length", [12, 20, 36])
def test_dissolves_are_found_also_under_a_moving_camera(
    tmp_path: Path, dx: float, length: int
) -> None:
    frames = dissolve(shot(1, 60, dx=dx / 2), shot(2, 72, dx=dx), length)
    found = cuts_of(film(tmp_path / "a.mp4", frames))
    assert kinds(found) == ["dissolve"]
    start = 60 - length
    assert abs(found[0].start_frame - start) <= 6
    assert abs(found[0].stop_frame - 60) <= 6


def test_a_slow_pan_over_soft_shapes_is_no_dissolve(tmp_path: Path) -> None:
    soft = np.stack([np.asarray(frame) for frame in shot(7, 120, dx=0.7)])
    assert cuts_of(film(tmp_path / "a.mp4", soft)) == ()


def test_slow_transitions_need_the_cascade(tmp_path: Path) -> None:
    """The paper's Fig. 12: slow fades escape a single detector at the native rate."""
    shots = [shot(seed, 60, dx=1) for seed in range(1, 5)]
    frames = dissolve(shots[0], shots[1], 20)
    frames = dissolve(frames, shots[2], 24)
    frames = fade_through_black(frames, shots[3], 14)
    track = track_of(film(tmp_path / "a.mp4", frames))
    ranges = [(40, 60), (76, 100), (122, 150)]
    single = adaptive_hits(
        np.arange(1, len(track.pts)),
        track.native_score,
        threshold=3.0,
        window=2,
        min_score=15.0,
        min_shot_frames=15,
    )
    found = [any(start <= hit < stop for hit in single) for start, stop in ranges]
    assert found.count(False) >= 2
    cuts = detect_cuts(track, CutConfig(), video_id="v", fps=24.0)[0]
    assert kinds(cuts) == ["dissolve", "dissolve", "fade"]
    for cut, (start, stop) in zip(cuts, ranges, strict=True):
        assert abs(cut.start_frame - start) <= 4
        assert abs(cut.stop_frame - stop) <= 4


def test_a_black_gap_between_cuts_belongs_to_no_shot(tmp_path: Path) -> None:
    black = np.zeros((12, 180, 320, 3), dtype=np.uint8)
    found = cuts_of(film(tmp_path / "a.mp4", shot(1, 40), black, shot(2, 40)))
    shots = shots_between(found, num_frames=92, guard_frames=0)
    assert [(s.start, s.stop) for s in shots] == [(0, 40), (52, 92)]


def test_a_still_video_has_no_cuts(tmp_path: Path) -> None:
    assert cuts_of(film(tmp_path / "a.mp4", shot(1, 60))) == ()


def test_guards_keep_away_from_gradual_transitions_only() -> None:
    hard = Cut(video_id="v", start_frame=10, stop_frame=10, kind="hard", score=1, detector="d")
    fade = Cut(video_id="v", start_frame=20, stop_frame=30, kind="fade", score=1, detector="d")
    shots = shots_between([hard, fade], num_frames=50, guard_frames=3)
    assert [(s.start, s.stop) for s in shots] == [(0, 10), (10, 17), (33, 50)]


def test_adaptive_needs_a_peak_and_content_only_a_height() -> None:
    scores = np.array([2, 2, 40, 2, 2, 30, 30, 30, 30, 30, 2, 2, 2, 2], dtype=np.float32)
    frames = np.arange(1, len(scores) + 1)
    peaks = adaptive_hits(
        frames, scores, threshold=3.0, window=2, min_score=15.0, min_shot_frames=2
    )
    assert peaks == [3]
    assert content_hits(frames, scores, threshold=27.0) == [3, 6, 7, 8, 9, 10]


def test_fades_through_black_split_in_the_middle_and_at_the_end() -> None:
    ramp = np.concatenate([np.linspace(200, 0, 41), np.zeros(39), np.linspace(0, 200, 41)])
    both = np.concatenate([ramp, np.linspace(200, 0, 41)])
    assert threshold_hits(ramp.astype(np.float32), threshold=11.0) == [60]
    assert threshold_hits(both.astype(np.float32), threshold=11.0) == [60, 159]
