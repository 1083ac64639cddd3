import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from svd.config.curation import FilterConfig, SplitConfig, Threshold, ThresholdSet
from svd.curation.filter.judge import judge
from svd.curation.filter.split import assign_splits
from svd.curation.filter.thresholds import Bounds, resolve_bounds
from svd.errors import ConfigError
from svd.types.annotation import Annotation, Verdict


def row(
    clip_id: str, *, group: str | None = None, video: str = "v", frames: int = 48, **scores: float
) -> Annotation:
    return Annotation(
        clip_id=clip_id,
        video_id=video,
        num_frames=frames,
        duration_s=frames / 24,
        scores={name.replace("_", ".", 1): value for name, value in scores.items()},
        missing={"text.area": "no sampled frame"} if "text_area" not in scores else {},
        captions=(),
        hashes=(),
        group_id=group or clip_id,
        scorers={},
        bank_frames=(),
    )


def config(**changes: object) -> FilterConfig:
    values = {"thresholds": {}, "split": SplitConfig(heldout_share=0.2)}
    return FilterConfig(**(values | changes))


def verdicts(rows: list[Annotation], settings: FilterConfig) -> dict[str, Verdict]:
    made = judge(rows, resolve_bounds(rows, settings.in_force), settings)
    return {verdict.clip_id: verdict for verdict in made}


ROWS = [row(f"c{n:02d}", motion_dis=float(n), text_area=n / 100) for n in range(20)]


@pytest.mark.parametrize(
    ("threshold", "dropped"),
    [
        (Threshold(min=3.0), ["c00", "c01", "c02"]),
        (Threshold(max=17.5), ["c18", "c19"]),
        (Threshold(drop_lowest=0.125), ["c00", "c01"]),
        (Threshold(drop_highest=0.25), ["c15", "c16", "c17", "c18", "c19"]),
        (Threshold(min=1.0, drop_lowest=0.2), ["c00", "c01", "c02", "c03"]),
    ],
    ids=["below", "above", "lowest-eighth", "highest-quarter", "the-stricter-of-two"],
)
def test_bounds_by_value_and_by_quantile(threshold: Threshold, dropped: list[str]) -> None:
    found = verdicts(ROWS, config(thresholds={"motion.dis": threshold}))
    assert [clip for clip, verdict in found.items() if not verdict.kept] == dropped


def test_every_reason_that_applies_is_given() -> None:
    limits = {"motion.dis": Threshold(min=10.0), "text.area": Threshold(min=0.05, max=0.12)}
    found = verdicts(ROWS, config(thresholds=limits))
    assert [reason.score for reason in found["c02"].reasons] == ["motion.dis", "text.area"]
    assert found["c02"].reasons[0].sentence == "motion.dis is 2, below 10"
    assert found["c15"].reasons[0].sentence == "text.area is 0.15, above 0.12"
    assert found["c11"].kept


@pytest.mark.parametrize(("policy", "kept"), [("drop", False), ("keep", True)])
def test_a_missing_score_is_a_reason_if_so_configured(policy: str, kept: bool) -> None:
    rows = [*ROWS, row("x", motion_dis=5.0)]
    limits = {"text.area": Threshold(max=1.0)}
    verdict = verdicts(rows, config(thresholds=limits, missing_scores=policy))["x"]
    assert verdict.kept is kept
    if not kept:
        assert verdict.reasons[0].sentence == "text.area was not measured: no sampled frame"


def test_a_score_nobody_has_is_a_mistake_in_the_recipe() -> None:
    with pytest.raises(ConfigError, match=r"motion\.raft, which no clip has"):
        resolve_bounds(ROWS, {"motion.raft": Threshold(min=1.0)})


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_a_quantile_never_drops_more_than_its_share(values: list[float], share: float) -> None:
    rows = [row(f"{n:03d}", a_b=value) for n, value in enumerate(values)]
    bounds = resolve_bounds(rows, {"a.b": Threshold(drop_lowest=share)})
    assert bounds["a.b"].low is not None
    assert sum(value < bounds["a.b"].low for value in values) <= share * len(values)


@pytest.mark.parametrize("values", [{}, {"min": 2.0, "max": 1.0}, {"drop_lowest": 0.0}])
def test_thresholds_that_mean_nothing_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Threshold(**values)


def test_the_longest_near_duplicates_stay() -> None:
    rows = [row("a", group="a", frames=30), row("b", group="a", frames=60), row("c", group="a")]
    found = verdicts(rows, config(max_per_group=1))
    assert [clip for clip, verdict in found.items() if verdict.kept] == ["b"]
    assert found["a"].reasons[0].sentence == "a near-duplicate of b, which is kept"


def test_the_high_quality_tier_is_a_second_bar_over_the_kept_clips() -> None:
    second = ThresholdSet(thresholds={"motion.dis": Threshold(drop_lowest=0.5)})
    found = verdicts(
        ROWS, config(thresholds={"motion.dis": Threshold(min=10.0)}, high_quality=second)
    )
    tiers = [verdict.tier for verdict in found.values()]
    assert tiers == [None] * 10 + ["base"] * 5 + ["high-quality"] * 5
    assert found["c12"].short_of[0].sentence == "motion.dis is 12, below 15"
    assert all(not verdict.short_of for verdict in found.values() if verdict.tier != "base")


def test_without_a_second_bar_every_kept_clip_is_base() -> None:
    found = verdicts(ROWS, config(thresholds={"motion.dis": Threshold(min=10.0)}))
    assert {verdict.tier for verdict in found.values()} == {None, "base"}


def test_a_clip_that_lacks_a_score_is_no_high_quality() -> None:
    rows = [row("a", motion_dis=1.0, look_sharp=3.0), row("b", motion_dis=1.0)]
    second = ThresholdSet(thresholds={"look.sharp": Threshold(min=2.0)})
    found = verdicts(rows, config(high_quality=second, missing_scores="keep"))
    assert (found["a"].tier, found["b"].tier) == ("high-quality", "base")
    assert found["b"].short_of[0].rule == "not-measured"


def test_the_lvd_f_preset_has_the_papers_choices_and_yields_to_the_recipe() -> None:
    shares = {name: bound.drop_lowest for name, bound in config(preset="lvd-f").in_force.items()}
    assert shares == {
        "motion.farneback_px": 0.25,
        "clip.aesthetic": 0.25,
        "clip.similarity": 0.5,
        "text.area": None,
    }
    assert config(preset="lvd-f").in_force["text.area"].max == 0.07
    own = {"clip.similarity": Threshold(drop_lowest=0.125)}
    assert config(preset="lvd-f", thresholds=own).in_force["clip.similarity"].drop_lowest == 0.125


def many(num: int) -> list[Annotation]:
    return [row(f"c{n:04d}", group=f"g{n // 3:04d}", video=f"v{n // 30}") for n in range(num)]


def test_groups_are_never_divided_and_the_share_is_met() -> None:
    rows = many(3000)
    splits = assign_splits(rows, [r.clip_id for r in rows], SplitConfig(heldout_share=0.1))
    by_group: dict[str, set[str]] = {}
    for r in rows:
        by_group.setdefault(r.group_id, set()).add(splits[r.clip_id])
    assert all(len(names) == 1 for names in by_group.values())
    assert 0.08 < list(splits.values()).count("heldout") / 3000 < 0.12


def test_more_clips_do_not_move_the_others() -> None:
    split = SplitConfig(heldout_share=0.1)
    few, more = many(300), many(900)
    before = assign_splits(few, [r.clip_id for r in few], split)
    after = assign_splits(more, [r.clip_id for r in more], split)
    assert {clip: after[clip] for clip in before} == before


def test_a_small_set_is_topped_up() -> None:
    rows = many(60)
    split = SplitConfig(heldout_share=0.01, min_heldout_clips=16)
    names = list(assign_splits(rows, [r.clip_id for r in rows], split).values())
    assert 16 <= names.count("heldout") <= 18


def test_sources_that_share_a_duplicate_are_not_divided() -> None:
    rows = [row("a", video="v1", group="g"), row("b", video="v2", group="g"), row("c", video="v2")]
    rows += [row(f"d{n}", video=f"w{n}") for n in range(40)]
    split = SplitConfig(heldout_share=0.3, whole_sources=True)
    splits = assign_splits(rows, [r.clip_id for r in rows], split)
    assert len({splits["a"], splits["b"], splits["c"]}) == 1
    assert set(splits.values()) == {"train", "heldout"}


def test_dropped_clips_have_no_split() -> None:
    found = verdicts(ROWS, config(thresholds={"motion.dis": Threshold(min=10.0)}))
    assert all((verdict.split is None) != verdict.kept for verdict in found.values())


def test_bounds_without_clips_are_open() -> None:
    assert resolve_bounds([], {"a.b": Threshold(drop_lowest=0.5)}) == {"a.b": Bounds(None, None)}
