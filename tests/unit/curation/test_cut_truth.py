"""The cascade against cuts that are known: our own corpus, and published expectations."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svd.config.curation import BankConfig, CutConfig
from svd.config.ingest import SyntheticSource
from svd.curation.clip.cut_scores import Agreement, compare_gradual, compare_hard
from svd.curation.clip.cuts import detect_cuts
from svd.curation.clip.detectors import adaptive_hits, content_hits, threshold_hits
from svd.curation.clip.runs import Segment
from svd.curation.clip.scan import scan_segments
from svd.curation.clip.track import FrameTrack
from svd.curation.ingest.paintings import paint
from svd.curation.ingest.synthetic import describe, write_synthetic
from svd.curation.ingest.synthetic_plan import VideoPlan, plan_corpus
from svd.media.probe import probe_video
from svd.types.truth import TrueCut
from svd.types.video import Cut

WHOLE = Segment(start_pts=None, stop_pts=None, previous_pts=None)
BANK = BankConfig(short_side_px=64, still_short_side_px=64)


def track_of(path: Path) -> FrameTrack:
    probe = probe_video(path).probe
    return next(iter(scan_segments(path, (WHOLE,), probe, cuts=CutConfig(), bank=BANK))).track


Filmed = list[tuple[VideoPlan, FrameTrack, tuple[TrueCut, ...]]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Filmed:
    """Every kind of cut twice over, filmed from our own paintings."""
    folder = tmp_path_factory.mktemp("corpus")
    source = SyntheticSource(kind="synthetic", num_videos=24, num_duplicates=0, photos=())
    pictures = {f"p{n}": paint(1, 3, n, width=400, height=225) for n in range(8)}
    filmed = []
    for plan in plan_corpus(source, list(pictures), seed=1):
        if plan.transitions:
            path = write_synthetic(plan, pictures, folder)
            truth = describe(plan, video_id=plan.name, duplicate_of=None).cuts
            filmed.append((plan, track_of(path), truth))
            path.unlink()
    return filmed


def test_the_cascade_finds_the_cuts_of_the_synthetic_corpus(corpus: Filmed) -> None:
    hard, gradual = Agreement(), Agreement()
    for plan, track, truth in corpus:
        cuts, _ = detect_cuts(track, CutConfig(), video_id=plan.name, fps=float(plan.fps))
        hard += compare_hard(cuts, truth)
        gradual += compare_gradual(cuts, truth)
    assert hard.num_true >= 12
    assert gradual.num_true >= 15
    assert hard.f1 >= 0.98
    assert gradual.recall >= 0.9
    assert gradual.precision >= 0.9


def test_a_single_detector_at_the_native_rate_misses_slow_fades(corpus: Filmed) -> None:
    """The paper's Fig. 12; the detector is PySceneDetect's with its own threshold."""
    fades = missed = 0
    for _, track, truth in corpus:
        frames = np.arange(1, len(track.pts))
        hits = content_hits(frames, track.native_score, threshold=27.0)
        for cut in truth:
            if cut.kind == "fade":
                fades += 1
                missed += not any(cut.start_frame <= hit <= cut.stop_frame for hit in hits)
    assert fades >= 8
    assert missed / fades >= 0.4


def cut(start: int, stop: int | None = None) -> Cut:
    kind = "hard" if stop is None else "fade"
    end = start if stop is None else stop
    return Cut(video_id="v", start_frame=start, stop_frame=end, kind=kind, score=1.0, detector="d")


def true(start: int, stop: int | None = None) -> TrueCut:
    kind = "hard" if stop is None else "dissolve"
    return TrueCut(kind=kind, start_frame=start, stop_frame=start if stop is None else stop)


@pytest.mark.parametrize(
    ("found", "truth", "matched"),
    [
        ([10, 20], [10, 20], 2),
        ([11, 19], [10, 20], 2),
        ([12], [10], 0),
        ([10, 11], [10], 1),
        ([10], [9, 11], 1),
    ],
    ids=["exact", "one-off", "two-off", "found-twice", "one-for-two"],
)
def test_a_hard_cut_matches_one_other_at_most_one_frame_away(
    found: list[int], truth: list[int], matched: int
) -> None:
    agreement = compare_hard([cut(n) for n in found], [true(n) for n in truth])
    assert agreement == Agreement(len(truth), len(found), matched, matched)


@given(st.lists(st.integers(0, 500), unique=True), st.lists(st.integers(0, 500), unique=True))
def test_no_better_pairing_of_hard_cuts_exists(found: list[int], truth: list[int]) -> None:
    made = compare_hard([cut(n) for n in found], [true(n) for n in truth])
    other_way = compare_hard([cut(n) for n in truth], [true(n) for n in found])
    assert made.num_recalled == other_way.num_recalled
    assert made.num_recalled >= len(set(found) & set(truth))


def test_a_gradual_cut_agrees_where_half_of_it_does() -> None:
    truth = [true(10, 30), true(100, 120)]
    agreement = compare_gradual([cut(15, 40), cut(119, 160), cut(300)], truth)
    assert agreement == Agreement(num_true=2, num_found=2, num_recalled=1, num_right=1)


# Published expectations: tests/test_detectors.py of PySceneDetect (BSD-3), for its own two videos.
_VIDEOS = os.environ.get("SVD_TEST_VIDEOS", "")
with_videos = pytest.mark.skipif(
    not (Path(_VIDEOS) / "psd_fades.mp4").is_file(),
    reason="SVD_TEST_VIDEOS names no folder with PySceneDetect's psd_fades.mp4, psd_testvideo.mp4",
)


@with_videos
def test_published_fades_through_black_are_split_where_pyscenedetect_splits_them() -> None:
    fades = track_of(Path(_VIDEOS) / "psd_fades.mp4")
    assert threshold_hits(fades.mean_rgb, threshold=11.0) == [84, 167, 245]
    test_video = track_of(Path(_VIDEOS) / "psd_testvideo.mp4")
    hits = threshold_hits(test_video.mean_rgb[:500], threshold=12.0)
    assert [hit for hit in hits if hit < 499] == [15, 198, 377]


@with_videos
def test_published_cuts_are_found_where_pyscenedetect_finds_them() -> None:
    track = track_of(Path(_VIDEOS) / "psd_testvideo.mp4")
    hits = adaptive_hits(
        np.arange(1, len(track.pts)),
        track.native_score,
        threshold=3.0,
        window=2,
        min_score=15.0,
        min_shot_frames=15,
    )
    assert hits == [30, 180, 394, 691]


@with_videos
def test_every_published_fade_is_a_cut_of_the_cascade() -> None:
    track = track_of(Path(_VIDEOS) / "psd_fades.mp4")
    cuts, _ = detect_cuts(track, CutConfig(), video_id="v", fps=25.0)
    for frame in (84, 167, 245):  # darkest frames
        assert any(c.kind == "fade" and c.start_frame <= frame <= c.stop_frame for c in cuts)
    for frame in (42, 126, 209):  # brightest frames
        assert any(c.kind == "fade" and c.start_frame <= frame <= c.stop_frame for c in cuts)
