from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from svd.config.ingest import VIDEO_KINDS, SyntheticSource
from svd.curation.ingest.paintings import paint
from svd.curation.ingest.synthetic import describe, render, scaled_size, text_boxes, write_synthetic
from svd.curation.ingest.synthetic_plan import (
    ObjectPlan,
    ShotPlan,
    TextPlan,
    TransitionPlan,
    VideoPlan,
    plan_corpus,
)

WIDTH, HEIGHT = 160, 96


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    return {f"p{i}": paint(7, i, width=300, height=180) for i in range(4)}


def source(**changes: object) -> SyntheticSource:
    small = {"num_videos": 12, "num_duplicates": 3, "width": WIDTH, "height": HEIGHT, "photos": ()}
    return SyntheticSource(kind="synthetic", min_seconds=2.0, max_seconds=3.0, **small | changes)


def plan_of(*shots: ShotPlan, transitions: tuple[TransitionPlan, ...] = ()) -> VideoPlan:
    return VideoPlan(
        name="test",
        kind="mixed",
        key=(1,),
        width=WIDTH,
        height=HEIGHT,
        fps=Fraction(24),
        shots=shots,
        transitions=transitions,
    )


def shot(picture: str = "p0", num_frames: int = 12, **changes: object) -> ShotPlan:
    return ShotPlan(picture=picture, num_frames=num_frames, **{"camera": "static"} | changes)


def luma(frame: np.ndarray) -> float:
    return float(frame.mean())


def displacement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Median displacement of the content over the middle of the frame, by an outside method."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    inner = flow[HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4]
    return np.median(inner.reshape(-1, 2), axis=0)


def test_a_plan_depends_on_seed_and_settings_alone() -> None:
    names = ["a", "b", "c"]
    assert plan_corpus(source(), names, seed=1) == plan_corpus(source(), names, seed=1)
    assert plan_corpus(source(), names, seed=1) != plan_corpus(source(), names, seed=2)


def test_more_videos_do_not_change_the_first_ones() -> None:
    few = plan_corpus(source(num_videos=4, num_duplicates=0), ["a", "b"], seed=1)
    many = plan_corpus(source(num_videos=12, num_duplicates=0), ["a", "b"], seed=1)
    assert many[:4] == few


def test_a_corpus_has_every_kind_and_its_duplicates_last() -> None:
    plans = plan_corpus(source(), ["a", "b", "c"], seed=1)
    assert tuple(plan.kind for plan in plans[:12]) == VIDEO_KINDS
    assert [plan.duplicate_kind for plan in plans] == [None] * 12 + ["reencoded", "scaled", "webm"]
    originals = [plan.duplicate_of for plan in plans[12:]]
    assert len(set(originals)) == 3
    assert set(originals) <= {plan.name for plan in plans[:12]}


@pytest.mark.parametrize("seed", range(5))
def test_neighbouring_shots_film_different_pictures(seed: int) -> None:
    for plan in plan_corpus(source(), ["a", "b", "c", "d", "e"], seed=seed):
        names = [shot.picture for shot in plan.shots]
        assert all(a != b for a, b in pairwise(names))


@pytest.mark.parametrize("seed", range(3))
def test_lengths_are_within_the_settings(seed: int) -> None:
    for plan in plan_corpus(source(num_videos=24), ["a", "b", "c"], seed=seed):
        in_shots = sum(shot.num_frames for shot in plan.shots)
        assert 2 * 24 - 12 <= in_shots <= 3 * 24 + 36


def test_equal_plans_give_equal_bytes(tmp_path, pictures) -> None:
    plan = plan_corpus(source(), list(pictures), seed=1)[8]
    first = write_synthetic(plan, pictures, tmp_path).read_bytes()
    assert write_synthetic(plan, pictures, tmp_path).read_bytes() == first


@pytest.mark.parametrize(("dx", "dy"), [(3.0, 0.0), (-2.0, 0.0), (0.0, 4.0), (0.5, 0.0)], ids=str)
def test_the_content_moves_as_far_as_the_truth_says(pictures, dx: float, dy: float) -> None:
    plan = plan_of(shot(dx=dx, dy=dy, camera="horizontal" if dx else "vertical"))
    frames = list(render(plan, pictures))
    measured = displacement(frames[0], frames[4]) / 4
    assert measured == pytest.approx([dx, dy], abs=0.1)
    truth = describe(plan, video_id="x", duplicate_of=None).shots[0]
    assert (truth.dx, truth.dy, truth.mean_motion_px) == (dx, dy, abs(dx + dy))


def test_a_pan_goes_on_beyond_the_picture_at_the_same_speed(pictures) -> None:
    frames = list(render(plan_of(shot(num_frames=200, dx=6.0, camera="horizontal")), pictures))
    for start in (0, 70, 150, 190):
        before, after = frames[start].astype(int), frames[start + 1].astype(int)
        still, moved = after - before, after[:, 6:] - before[:, :-6]
        assert np.abs(moved).mean() < 2.5  # two draws of noise
        assert np.abs(still).mean() > 2 * np.abs(moved).mean()


def test_a_zoom_magnifies_about_the_centre_at_its_rate(pictures) -> None:
    frames = list(render(plan_of(shot(zoom=1.02, camera="zoom-in")), pictures))
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (frames[0], frames[5])]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] - np.array([[[HEIGHT - 1]], [[WIDTH - 1]]]) / 2
    growth = (flow[..., 0] * x + flow[..., 1] * y).sum() / (x * x + y * y).sum()
    assert growth == pytest.approx(1.02**5 - 1, abs=0.02)


def test_a_static_shot_has_noise_and_no_motion(pictures) -> None:
    frames = list(render(plan_of(shot()), pictures))
    difference = frames[0].astype(int) - frames[1]
    assert np.abs(difference).max() > 0
    assert np.abs(displacement(frames[0], frames[-1])).max() < 0.05


def test_a_moving_object_moves_and_its_ground_does_not(pictures) -> None:
    moving = ObjectPlan(picture="p1", diameter=40, x=20, y=20, dx=2.0, dy=0.0)
    frames = list(render(plan_of(shot(moving=moving)), pictures))
    changed = np.abs(frames[0].astype(int) - frames[8]).max(axis=2) > 40
    columns = np.flatnonzero(changed.any(axis=0))
    rows = np.flatnonzero(changed.any(axis=1))
    assert columns.min() >= 18
    assert columns.max() <= 20 + 40 + 16 + 2
    assert rows.min() >= 18
    assert rows.max() <= 62


def test_an_object_never_leaves_the_frame(pictures) -> None:
    moving = ObjectPlan(picture="p1", diameter=40, x=100, y=10, dx=9.5, dy=-7.3)
    assert len(list(render(plan_of(shot(num_frames=120, moving=moving)), pictures))) == 120


def test_a_hard_cut_is_where_the_truth_says(pictures) -> None:
    plan = plan_of(
        shot("p0", 10), shot("p1", 10), transitions=(TransitionPlan(kind="hard", num_frames=0),)
    )
    truth = describe(plan, video_id="x", duplicate_of=None)
    assert [(cut.start_frame, cut.stop_frame) for cut in truth.cuts] == [(10, 10)]
    frames = [frame.astype(int) for frame in render(plan, pictures)]
    jumps = [np.abs(b - a).mean() for a, b in pairwise(frames)]
    assert int(np.argmax(jumps)) + 1 == 10
    assert sorted(jumps)[-1] > 5 * sorted(jumps)[-2]


def test_a_fade_goes_through_black_between_the_shots(pictures) -> None:
    plan = plan_of(
        shot("p0", 10), shot("p1", 10), transitions=(TransitionPlan(kind="fade", num_frames=12),)
    )
    truth = describe(plan, video_id="x", duplicate_of=None)
    assert [(c.kind, c.start_frame, c.stop_frame) for c in truth.cuts] == [("fade", 10, 22)]
    assert [(s.start_frame, s.stop_frame) for s in truth.shots] == [(0, 10), (22, 32)]
    levels = [luma(frame) for frame in render(plan, pictures)]
    assert len(levels) == truth.num_frames == 32
    assert min(levels[:10]) > 50
    assert min(levels[22:]) > 50
    assert levels[15:17] == pytest.approx([32 / 3, 32 / 3], abs=0.1)
    assert levels[9:16] == sorted(levels[9:16], reverse=True)
    assert levels[16:23] == sorted(levels[16:23])


def test_a_dissolve_mixes_two_moving_shots(pictures) -> None:
    plan = plan_of(
        shot("p0", 10),
        shot("p1", 10),
        transitions=(TransitionPlan(kind="dissolve", num_frames=9),),
    )
    frames = [frame.astype(float) for frame in render(plan, pictures)]
    half = (frames[0] + frames[-1]) / 2
    assert np.abs(frames[14] - half).mean() < 3
    assert len(frames) == 29


def test_text_fills_the_boxes_of_the_truth_and_nothing_else(pictures) -> None:
    text = TextPlan(lines=("NEWS TODAY", "LIVE"), width_ratio=0.8, centre_y=0.5)
    with_text = next(render(plan_of(shot(text=text)), pictures)).astype(int)
    without = next(render(plan_of(shot()), pictures)).astype(int)
    changed = np.abs(with_text - without).max(axis=2) > 30
    inside = np.zeros_like(changed)
    boxes = text_boxes(text, width=WIDTH, height=HEIGHT)
    for box in boxes:
        inside[box.top - 2 : box.top + box.height + 2, box.left - 2 : box.left + box.width + 2] = 1
    assert not (changed & ~inside).any()
    for box in boxes:
        region = changed[box.top : box.top + box.height, box.left : box.left + box.width]
        assert region.mean() > 0.2
    truth = describe(plan_of(shot(text=text)), video_id="x", duplicate_of=None).shots[0]
    area = sum(box.width * box.height for box in boxes)
    assert truth.text_area_ratio == pytest.approx(area / (WIDTH * HEIGHT))


@pytest.mark.parametrize("size", [(160, 96), (320, 180), (480, 270)], ids=str)
def test_texts_lie_on_either_side_of_the_papers_rule(size) -> None:
    width, height = size
    for plan in plan_corpus(source(width=width, height=height), ["a", "b"], seed=3):
        ratios = {s.text_area_ratio for s in describe(plan, video_id="x", duplicate_of=None).shots}
        if plan.kind == "text":
            assert min(ratios) > 0.12
        elif plan.kind == "captioned":
            assert 0 < max(ratios) < 0.05
        else:
            assert ratios == {0}


@pytest.mark.parametrize("kind", ["reencoded", "scaled", "webm"])
def test_a_duplicate_shows_the_same_in_other_bytes(tmp_path, pictures, kind: str) -> None:
    original = plan_of(shot(num_frames=8, dx=2.0, camera="horizontal"))
    copy = original.model_copy(
        update={"name": "copy", "duplicate_of": "test", "duplicate_kind": kind}
    )
    paths = [write_synthetic(plan, pictures, tmp_path) for plan in (original, copy)]
    assert paths[0].read_bytes() != paths[1].read_bytes()
    width, height = scaled_size(copy)
    for frame, other in zip(*map(read_frames, paths), strict=True):
        assert other.shape == (height, width, 3)
        resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        assert cv2.PSNR(resized, other) > 24
    truth = describe(copy, video_id="b", duplicate_of="a")
    assert (truth.duplicate_of, truth.duplicate_kind) == ("a", kind)
    assert truth.shots[0].dx == pytest.approx(2.0 * width / WIDTH)


def read_frames(path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("key", range(8))
def test_no_painting_is_dark_enough_to_pass_for_black(key: int) -> None:
    assert 60 < paint(key, width=120, height=80).mean() < 180


@pytest.mark.parametrize("key", range(4))
def test_no_part_of_a_painting_is_flat(key: int) -> None:
    picture = paint(key, width=320, height=192).astype(float)
    tiles = picture.reshape(12, 16, 20, 16, 3).transpose(0, 2, 1, 3, 4).reshape(240, 256, 3)
    assert tiles.std(axis=1).max(axis=1).min() > 4


@pytest.mark.parametrize("key", range(4))
def test_a_plain_painting_has_large_forms_only(key: int) -> None:
    plain, detailed = (
        paint(key, width=320, height=192, style=style).astype(float)
        for style in ("plain", "detailed")
    )
    steps = [
        np.abs(np.diff(picture, axis=1)).mean() / picture.std() for picture in (plain, detailed)
    ]
    assert steps[0] < 0.25 * steps[1]
    assert plain.std(axis=(0, 1)).max() > 10  # there is something to follow


def test_a_painting_depends_on_its_key_alone() -> None:
    assert np.array_equal(paint(1, 2, width=64, height=64), paint(1, 2, width=64, height=64))
    assert not np.array_equal(paint(1, 2, width=64, height=64), paint(1, 3, width=64, height=64))


def test_a_corpus_of_chosen_kinds_holds_those_in_turn() -> None:
    config = SyntheticSource(
        kind="synthetic", num_videos=5, num_duplicates=0, kinds=("pan", "zoom-in")
    )
    plans = plan_corpus(config, ["a", "b"], seed=1)
    assert [plan.kind for plan in plans] == ["pan", "zoom-in", "pan", "zoom-in", "pan"]
    assert {shot.camera for plan in plans for shot in plan.shots} == {"horizontal", "zoom-in"}


@pytest.mark.parametrize(("style", "limit"), [("detailed", 2.2), ("plain", 5.0)])
def test_zooms_take_turns_up_to_what_a_picture_bears(style: str, limit: float) -> None:
    config = SyntheticSource(
        kind="synthetic",
        num_videos=4,
        num_duplicates=0,
        kinds=("zoom-in",),
        zooms=(1.002, 1.05),
        painting_style=style,
    )
    plans = plan_corpus(config, ["a", "b"], seed=3)
    slow, fast = (plans[index].shots[0] for index in (0, 1))
    assert slow.zoom == 1.002
    assert fast.zoom ** (1.5 * fast.num_frames) == pytest.approx(limit, rel=1e-3)
