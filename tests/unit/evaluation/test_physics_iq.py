import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from svd.cli import app
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.evaluation.metrics.physics_iq import (
    View,
    blend_to_rate,
    compare_motion,
    motion_masks,
    physics_iq_score,
)
from svd.evaluation.tables.physics_iq import (
    VIEWS,
    read_physics_iq_table,
    score_physics_iq_table,
    write_physics_iq_table,
)

# Random values (seed 0) in the official per-view format; the official program says 34.21.
GOLDEN = Path(__file__).parent / "golden" / "physics_iq_seed0.csv"


def ball(num_frames: int, *, speed: float, height: int = 60, width: int = 80) -> np.ndarray:
    """A white square that crosses a grey scene."""
    frames = np.full((num_frames, height, width, 3), 90, np.uint8)
    for index, frame in enumerate(frames):
        left = round(speed * index)
        frame[20:34, left : left + 14] = 250
    return frames


def motion(frames_a: np.ndarray, frames_b: np.ndarray):
    return compare_motion(frames_a, frames_b, motion_masks(frames_a), motion_masks(frames_b))


def test_the_golden_table_scores_as_the_official_program_says() -> None:
    done = CliRunner().invoke(app, ["evaluate", "physics-iq-table", str(GOLDEN)])
    assert done.exit_code == 0, done.output
    assert "score 34.21 (4 scenarios)" in done.output


def test_a_table_survives_being_written_and_read(tmp_path: Path) -> None:
    views = read_physics_iq_table(GOLDEN)
    by_scenario = {views[start].scenario: views[start : start + 3] for start in range(0, 12, 3)}
    path = tmp_path / "ours.csv"
    write_physics_iq_table(path, by_scenario)
    assert read_physics_iq_table(path) == views
    assert score_physics_iq_table(path).score == 34.21


def test_a_model_as_good_as_another_take_scores_100() -> None:
    take = motion(ball(12, speed=4.0), ball(12, speed=4.5))
    assert physics_iq_score([View("s", take, take)]).score == 100


def test_the_score_stays_between_0_and_100() -> None:
    real = motion(ball(12, speed=4.0), ball(12, speed=4.5))
    perfect = motion(ball(12, speed=4.0), ball(12, speed=4.0))
    still = motion(ball(12, speed=4.0), ball(12, speed=0.0))
    assert physics_iq_score([View("s", perfect, real)]).score == 100
    assert 0 <= physics_iq_score([View("s", still, real)]).score < 40


def test_masks_show_what_moves_and_are_empty_in_the_first_frame() -> None:
    masks = motion_masks(ball(10, speed=4.0))
    assert not masks[0].any()
    assert masks[5, 20:34, 14:40].any()
    assert not masks[:, :10].any()
    assert not masks[:, 50:].any()


def test_a_still_scene_never_moves_and_two_of_them_overlap_fully() -> None:
    frames = ball(5, speed=0.0)
    found = motion(frames, frames)
    assert found.spatial_iou == found.weighted_spatial_iou == 1.0
    assert set(found.spatiotemporal_iou) == {1.0}
    assert set(found.mse) == {0.0}


def test_error_is_in_squared_units_of_the_full_range() -> None:
    black = np.zeros((2, 20, 20, 3), np.uint8)
    assert motion(black, black + 255).mse == (1.0, 1.0)


def test_blending_keeps_the_ends_and_halves_the_middle() -> None:
    frames = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 100, 200)])
    assert [int(frame[0, 0, 0]) for frame in blend_to_rate(frames, 5)] == [0, 50, 100, 150, 200]
    assert blend_to_rate(frames, 3) is frames


def test_videos_of_other_length_are_refused() -> None:
    a, b = ball(4, speed=1.0), ball(5, speed=1.0)
    with pytest.raises(ConfigError, match="one length and size"):
        motion(a, b)


def test_takes_without_motion_are_refused_instead_of_divided_by() -> None:
    real = motion(ball(12, speed=4.0), ball(12, speed=0.0, height=60))
    empty = real._replace(spatiotemporal_iou=(0.0,) * 12, spatial_iou=0.0)
    with pytest.raises(ConfigError, match="wrong videos"):
        physics_iq_score([View("s", real, empty)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [("drop", "no column v1_mse_perspective-left"), ("text", "not a number"), ("nan", "not a")],
)
def test_a_bad_table_is_refused_with_place_and_reason(
    change: str, reason: str, tmp_path: Path
) -> None:
    rows = list(csv.DictReader(GOLDEN.open()))
    column = f"v1_mse_{VIEWS[0]}"
    for row in rows:
        row.pop(column) if change == "drop" else row.update({column: f"[{change}]"})
    path = tmp_path / "bad.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(IntegrityError, match=reason):
        score_physics_iq_table(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nothing\.csv: no such file"):
        score_physics_iq_table(tmp_path / "nothing.csv")
