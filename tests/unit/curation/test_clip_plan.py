import functools
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svd.config.curation import ClipConfig
from svd.curation.clip.clips import ClipPlan, CopyPoints, copy_points, plan_clips
from svd.curation.clip.cuts import Shot
from svd.media.decode import PacketIndex

TICK = Fraction(1, 24)


def config(min_s: float = 1.0, max_s: float = 4.0, share: float = 0.5) -> ClipConfig:
    return ClipConfig(min_clip_s=min_s, max_clip_s=max_s, min_copy_share=share)


def plan(
    shots: list[Shot],
    starts: list[int],
    stops: list[int] | None = None,
    *,
    num_frames: int = 480,
    clip: ClipConfig | None = None,
) -> ClipPlan:
    every = list(range(num_frames + 1))
    points = CopyPoints(
        starts=np.array(starts, dtype=np.int64),
        stops=np.array(every if stops is None else stops, dtype=np.int64),
    )
    return plan_clips(
        shots,
        points,
        np.arange(num_frames, dtype=np.int64),
        clip or config(),
        video_id="v",
        time_base=TICK,
        end_pts=num_frames,
    )


def ranges(plan: ClipPlan) -> list[tuple[int, int, str]]:
    return [(span.start_frame, span.stop_frame, span.method) for span in plan.spans]


@pytest.mark.parametrize(
    ("shots", "starts", "expected"),
    [
        ([Shot(0, 60)], [0], [(0, 60, "copy")]),
        ([Shot(0, 60), Shot(60, 120)], [0, 70], [(0, 60, "copy"), (70, 120, "copy")]),
        ([Shot(10, 70)], [0, 20, 50], [(20, 70, "copy")]),
        ([Shot(0, 23)], [0], []),
        ([Shot(50, 110)], [0], [(50, 110, "reencode")]),
        ([Shot(10, 110)], [0, 80], [(10, 60, "reencode"), (60, 110, "reencode")]),
        ([Shot(0, 150)], [0, 50, 90, 140], [(0, 90, "copy"), (90, 150, "copy")]),
        ([Shot(0, 120)], [0, 100], [(0, 96, "copy")]),
    ],
    ids=[
        "whole-shot",
        "start-snaps-forward",
        "keyframe-before-the-cut-is-not-used",
        "too-short",
        "no-keyframe",
        "keyframe-too-late",
        "split-at-a-keyframe",
        "rest-too-short",
    ],
)
def test_plans(shots: list[Shot], starts: list[int], expected: list[tuple[int, int, str]]) -> None:
    assert ranges(plan(shots, starts)) == expected


def test_a_copy_stops_where_decode_order_is_complete() -> None:
    assert ranges(plan([Shot(0, 61)], [0], stops=[0, 4, 30, 58, 64])) == [(0, 58, "copy")]


def test_left_out_frames_are_recorded() -> None:
    dropped = plan([Shot(0, 60), Shot(60, 70), Shot(70, 130)], [0, 75]).dropped
    assert [(d.start_frame, d.stop_frame, d.reason) for d in dropped] == [
        (60, 70, "shot-too-short"),
        (70, 75, "between-keyframes"),
    ]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Shot], list[int], list[int], int]:
    num = draw(st.integers(30, 240))
    cuts = draw(st.lists(st.integers(1, num - 1), unique=True, max_size=4))
    edges = [0, *sorted(cuts), num]
    starts = sorted(draw(st.sets(st.integers(0, num - 1), max_size=12)))
    stops = sorted(draw(st.sets(st.integers(1, num), max_size=30)) | {num})
    return [Shot(a, b) for a, b in itertools.pairwise(edges)], starts, stops, num


@settings(max_examples=150, deadline=None)
@given(worlds(), st.sampled_from([0.0, 0.5, 1.0]))
def test_plans_keep_their_promises(
    world: tuple[list[Shot], list[int], list[int], int], share: float
) -> None:
    shots, starts, stops, num = world
    made = plan(shots, starts, stops, num_frames=num, clip=config(0.5, 2.0, share))
    covered = np.zeros(num, dtype=int)
    for span in made.spans:
        length_s = (span.stop_pts - span.start_pts) * TICK
        assert Fraction(1, 2) <= length_s <= 2
        assert any(s.start <= span.start_frame and span.stop_frame <= s.stop for s in shots)
        if span.method == "copy":
            assert span.start_frame in starts
            assert span.stop_frame in stops
        covered[span.start_frame : span.stop_frame] += 1
    for gap in made.dropped:
        covered[gap.start_frame : gap.stop_frame] += 1
    assert (covered == 1).all()


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_no_other_way_of_copying_keeps_more(
    world: tuple[list[Shot], list[int], list[int], int],
) -> None:
    _, starts, stops, num = world
    starts, stops = starts[:5], stops[-8:]
    made = plan([Shot(0, num)], starts, stops, num_frames=num, clip=config(0.5, 2.0, 0.0))
    kept = sum(s.stop_frame - s.start_frame for s in made.spans if s.method == "copy")
    parts = [(a, b) for a in starts for b in stops if 12 <= b - a <= 48]

    @functools.cache
    def best_from(begin: int) -> int:
        rest = [b - a + best_from(b) for a, b in parts if a >= begin]
        return max(rest, default=0)

    assert kept == best_from(0)


def index(pts: list[int], keys: set[int], codec: str = "h264", **changes: object) -> PacketIndex:
    values = {
        "pts": np.array(pts, dtype=np.int64),
        "is_keyframe": np.array([p in keys for p in pts]),
        "is_shown": np.ones(len(pts), dtype=bool),
        "num_untimed": 0,
        "time_base": TICK,
        "codec": codec,
        "is_seekable": True,
    }
    return PacketIndex(**(values | changes))


def test_copies_cannot_stop_between_pictures_that_need_each_other() -> None:
    # Decode order I0 P3 B1 B2 P6 B4 B5: only after B2 and B5 is all shown that was decoded.
    points = copy_points(index([0, 3, 1, 2, 6, 4, 5], {0}), np.arange(7))
    assert points.starts.tolist() == [0]
    assert points.stops.tolist() == [0, 1, 4, 7]


def test_an_open_group_gives_a_start_but_no_stop_at_its_keyframe() -> None:
    # I4's leading pictures 2 and 3 come after it: a copy may begin at 4, but not end there.
    points = copy_points(index([0, 1, 4, 2, 3, 5], {0, 4}), np.arange(6))
    assert points.starts.tolist() == [0, 4]
    assert 4 not in points.stops.tolist()


@pytest.mark.parametrize(
    "unfit",
    [
        index([0, 1, 2], {0}, codec="vp8"),
        index([0, 1, 2], {0}, num_untimed=1),
        index([0, 1, 2, 3], {0}),
    ],
    ids=["codec-not-for-mp4", "untimed-packets", "packets-are-not-frames"],
)
def test_nothing_is_copied_where_packets_do_not_tell_what_is_shown(unfit: PacketIndex) -> None:
    assert copy_points(unfit, np.arange(3)).starts.size == 0
