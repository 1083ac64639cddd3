import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from patterns import pattern
from typer.testing import CliRunner

from svd.cli import app
from svd.errors import ConfigError, IntegrityError
from svd.evaluation.metrics.vbench import (
    VBENCH,
    VBENCH_I2V,
    consistency,
    image_fidelity,
    interpolation_smoothness,
    temporal_flickering,
    totals,
)

QUALITY = tuple(VBENCH_I2V.quality)  # in the leaderboard's order
BOARD = {  # VBench-I2V leaderboard: quality dimensions, i2v_subject, i2v_background, camera motion
    "SVD-XT-1.0": ((95.52, 96.61, 98.09, 52.36, 60.15, 69.80), (97.52, 97.63, None)),
    "SVD-XT-1.1": ((95.42, 96.77, 98.12, 43.17, 60.23, 70.23), (97.51, 97.62, None)),
    "Wan-I2V": ((94.86, 97.07, 97.90, 51.38, 64.75, 70.44), (96.95, 96.44, 34.76)),
}


def board_scores(model: str) -> dict[str, float]:
    quality, (subject, background, camera) = BOARD[model]
    scores = dict(zip(QUALITY, quality, strict=True))
    scores |= {"i2v_subject": subject, "i2v_background": background}
    scores |= {} if camera is None else {"camera_motion": camera}
    return {name: value / 100 for name, value in scores.items()}


@pytest.mark.parametrize(
    ("model", "quality"), [("SVD-XT-1.0", 80.11), ("SVD-XT-1.1", 79.40), ("Wan-I2V", 80.82)]
)
def test_the_leaderboards_quality_score_comes_out(model: str, quality: float) -> None:
    found = totals(VBENCH_I2V, board_scores(model))
    assert found.quality == pytest.approx(quality, abs=0.02)


def test_the_leaderboards_i2v_and_total_score_come_out() -> None:
    found = totals(VBENCH_I2V, board_scores("Wan-I2V"))
    assert found.following == pytest.approx(92.90, abs=0.02)
    assert found.total == pytest.approx(86.86, abs=0.02)


def test_a_missing_dimension_is_no_zero() -> None:
    found = totals(VBENCH_I2V, board_scores("SVD-XT-1.0"))
    assert found.following is None
    assert found.total is None


def test_weights_are_those_of_the_papers_divisors() -> None:
    assert sum(one.weight for one in VBENCH.quality.values()) == 6.5
    assert sum(one.weight for one in VBENCH.following.values()) == 9
    assert sum(one.weight for one in VBENCH_I2V.quality.values()) == 5.5
    assert sum(one.weight for one in VBENCH_I2V.following.values()) == pytest.approx(2.1)


@given(st.floats(0, 1))
def test_the_total_is_four_fifths_quality(level: float) -> None:
    suite = {**VBENCH.quality, **VBENCH.following}
    scores = {name: one.low + level * (one.high - one.low) for name, one in suite.items()}
    found = totals(VBENCH, scores)
    assert found.quality == pytest.approx(100 * level)
    assert found.following == pytest.approx(100 * level)
    assert found.total == pytest.approx(100 * level)
    scores["object_class"] = 0.0
    less = totals(VBENCH, scores)
    assert found.total is not None
    assert less.total is not None
    assert found.total - less.total == pytest.approx(100 * level / 9 / 5)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [({"flicker": 0.5}, "no dimension"), ({"scene": 55.0}, "not in percent")],
    ids=["unknown", "percent"],
)
def test_bad_scores_are_refused(scores: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        totals(VBENCH, scores)


def test_a_still_video_is_fully_consistent_and_does_not_flicker() -> None:
    still = pattern(1, 32, 48).repeat(5, 1, 1, 1)
    features = still.flatten(1).float()
    assert consistency(features) == pytest.approx(1)
    assert image_fidelity(features, features[0]) == pytest.approx(1)
    assert temporal_flickering(still) == 1
    assert interpolation_smoothness(still) == 1


def test_consistency_is_the_mean_of_first_and_previous() -> None:
    # Unit vectors at 0, 60 and 120 degrees: cosines to previous .5 .5, to first .5 and 0 (cut).
    angles = torch.tensor([0.0, torch.pi / 3, 2 * torch.pi / 3])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert consistency(features) == pytest.approx(((0.5 + 0.5) / 2 + (0.5 + 0) / 2) / 2)


def test_fidelity_weighs_nearest_mean_and_worst() -> None:
    angles = torch.tensor([0.0, torch.pi / 3, torch.pi / 2])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    neighbours = (0.5 + 3**0.5 / 2) / 2
    expected = 0.4 * 1 + 0.3 * neighbours + 0.3 * 0.5
    assert image_fidelity(features, features[0]) == pytest.approx(expected)


def test_a_steady_fade_is_smooth_and_a_blinking_one_is_not() -> None:
    levels = torch.tensor([0, 40, 80, 120, 160], dtype=torch.uint8).view(5, 1, 1, 1)
    fade = levels.expand(5, 3, 16, 16)
    assert interpolation_smoothness(fade) == 1
    blink = fade[[0, 4, 0, 4, 0]]
    assert interpolation_smoothness(blink) == pytest.approx(1 - 160 / 255)


def test_official_results_are_totalled_from_the_command_line(tmp_path: Path) -> None:
    results = {name: [value, []] for name, value in board_scores("Wan-I2V").items()}
    results["imaging_quality"] = [70.44, []]  # the scale of older releases
    path = tmp_path / "x_eval_results.json"
    path.write_text(json.dumps(results))
    command = ["evaluate", "vbench-table", str(path), "--suite", "vbench-i2v", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["Total"] == pytest.approx(86.86, abs=0.02)


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"subject_consistency": ["high"]}')
    done = CliRunner().invoke(app, ["evaluate", "vbench-table", str(path)])
    assert isinstance(done.exception, IntegrityError)
