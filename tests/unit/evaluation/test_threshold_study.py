"""Parts of a curated set, and what rankings of their proxies propose."""

from functools import partial
from pathlib import Path

import pytest
import yaml
from vote_studies import write_samples

from svd.config.curation import FilterConfig
from svd.config.load import parse_section
from svd.curation.filter.ablation import Part, clips_of, plan_parts
from svd.curation.filter.sweep import Axis, parse_axes
from svd.errors import ConfigError, MissingInputError
from svd.evaluation.votes.judge import judge_study
from svd.evaluation.votes.page import read_results
from svd.evaluation.votes.proposal import judge_axis, proposal
from svd.evaluation.votes.study import Entry, StudyOptions, create_study
from svd.types.ablation import AblationReport, AxisOutcome
from svd.types.annotation import Annotation

FILTER = FilterConfig.model_validate_json(
    '{"thresholds": {"text.area": {"max": 0.07}}, "split": {"heldout_share": 0.1}}'
)
MOTION = Axis("motion.dis_px", "lowest")


def annotation(index: int, **scores: float) -> Annotation:
    return Annotation(
        clip_id=f"c{index:03d}", video_id="v", num_frames=8, duration_s=1.0, scores=scores,
        missing={}, captions=(), hashes=(), group_id=f"c{index:03d}", scorers={}, bank_frames=(),
    )  # fmt: skip


ROWS = tuple(annotation(i, **{"motion.dis_px": float(i), "text.area": i / 80}) for i in range(80))


def test_each_axis_is_compared_with_everything_and_never_with_another_axis() -> None:
    parts = plan_parts([MOTION, Axis("text.area", "highest")], (0.5, 0.125, 0.25))
    assert [part.name for part in parts] == [
        "unfiltered",
        "motion.dis_px-lowest-12.5",
        "motion.dis_px-lowest-25",
        "motion.dis_px-lowest-50",
        "text.area-highest-12.5",
        "text.area-highest-25",
        "text.area-highest-50",
    ]


@pytest.mark.parametrize("share", [0.125, 0.25, 0.5])
def test_a_part_lacks_exactly_its_share_of_the_worse_end(share: float) -> None:
    low = clips_of(Part(MOTION, share), ROWS, FILTER)
    assert sorted(low) == [row.clip_id for row in ROWS[round(share * 80) :]]
    high = clips_of(Part(Axis("text.area", "highest"), share), ROWS, FILTER)
    assert sorted(high) == [row.clip_id for row in ROWS[: 80 - round(share * 80)]]
    assert len(clips_of(Part(None, 0), ROWS, FILTER)) == 80


def test_a_recipes_thresholds_are_the_axes_unless_others_are_named() -> None:
    assert parse_axes(None, FILTER) == (Axis("text.area", "highest"),)
    assert parse_axes(["a.b", "text.area:lowest"], FILTER) == (
        Axis("a.b", "lowest"),
        Axis("text.area", "lowest"),
    )
    with pytest.raises(ConfigError, match="lowest or highest"):
        parse_axes(["a.b:worst"], FILTER)
    with pytest.raises(ConfigError, match="shares"):
        plan_parts([MOTION], (1.5,))


def outcome_of(root: Path, noises: dict[float, float], *, num_items: int) -> AxisOutcome:
    """Return how proxies stand by the judge whose videos are noisy by the share left out."""
    parts = plan_parts([MOTION], [share for share in noises if share])
    items = [f"clip-{index}" for index in range(num_items)]
    entries = [
        Entry(part.name, write_samples(root / part.name, items, noise=noises[part.share]))
        for part in parts
    ]
    folder = root / "study"
    study = create_study(entries, folder, StudyOptions("motion"))
    judge_study(study, folder)
    rank = partial(
        judge_axis,
        "motion.dis_px",
        "lowest",
        study,
        read_results(folder, study, ()),
        shares={part.name: part.share for part in parts},
        num_clips={part.name: 80 - round(80 * part.share) for part in parts},
    )
    with pytest.raises(MissingInputError, match="collect more"):
        rank(ranked_by="people")  # a judge's verdicts are nobody's votes
    return rank(ranked_by="judge")


def proposal_of(outcome: AxisOutcome) -> str:
    return proposal(
        AblationReport(
            ranked_by="auto:x", num_votes=0, num_prompts=6, num_steps=4, outcomes=(outcome,)
        )
    )


def test_the_winner_is_proposed_as_a_threshold_that_the_recipe_takes(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, {0.0: 50.0, 0.25: 1.0, 0.5: 25.0}, num_items=16)
    assert outcome.winner == "motion.dis_px-lowest-25"
    assert outcome.is_clear
    assert "not clear" not in proposal_of(outcome)
    tree = yaml.safe_load(proposal_of(outcome))
    assert tree == {"filter": {"thresholds": {"motion.dis_px": {"drop_lowest": 0.25}}}}
    section = {**tree["filter"], "split": {"heldout_share": 0.1}}
    parse_section(yaml.safe_dump(section), FilterConfig, origin="proposal")


def test_a_handful_of_comparisons_that_went_one_way_is_not_called_clear(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, {0.0: 40.0, 0.5: 1.0}, num_items=4)
    assert outcome.winner == "motion.dis_px-lowest-50"
    assert not outcome.is_clear
    assert "not clear" in proposal_of(outcome)


def test_where_nothing_helps_no_threshold_is_proposed(tmp_path: Path) -> None:
    text = proposal_of(outcome_of(tmp_path, {0.0: 1.0, 0.5: 40.0}, num_items=4))
    assert yaml.safe_load(text) == {"filter": {"thresholds": {}}}
    assert "unfiltered stands highest" in text
