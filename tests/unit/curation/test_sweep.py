"""A sweep says beforehand what the filter stage would keep."""

import csv
import json
from pathlib import Path

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from svd.cli import app
from svd.config.curation import FilterConfig, SplitConfig, Threshold
from svd.curation.annotate.tables import TABLE_NAME, write_score_table
from svd.curation.filter.judge import judge
from svd.curation.filter.score_table import ScoreTable
from svd.curation.filter.sweep import Axis, sweep
from svd.curation.filter.thresholds import resolve_bounds
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.types.annotation import Annotation
from svd.types.curation import SweepReport

ROOT = Path(__file__).parents[3]
AXES = (Axis("motion.dis_px", "lowest"), Axis("text.area", "highest"))
SHARES = (0.125, 0.25, 0.5)


def row(number: int, motion: float | None, text: float | None) -> Annotation:
    scores = {"motion.dis_px": motion, "text.area": text}
    return Annotation(
        clip_id=f"c{number:04d}",
        video_id="v",
        num_frames=24 + number,
        duration_s=1 + number / 24,
        scores={name: value for name, value in scores.items() if value is not None},
        missing={},
        captions=(),
        hashes=(),
        group_id=f"c{number:04d}",
        scorers={},
        bank_frames=(),
    )


def config(thresholds: dict[str, Threshold] | None = None, missing: str = "drop") -> FilterConfig:
    return FilterConfig(
        thresholds=thresholds or {},
        missing_scores=missing,
        split=SplitConfig(heldout_share=0.2),
    )


def table_of(folder: Path, rows: list[Annotation]) -> ScoreTable:
    write_score_table(folder / TABLE_NAME, rows)
    return ScoreTable.open(folder / TABLE_NAME)


SCORE = st.one_of(st.none(), st.integers(0, 6).map(float), st.floats(-50, 50, allow_nan=False))


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=60),
    missing=st.sampled_from(["drop", "keep"]),
)
def test_every_combination_counts_what_the_filter_stage_keeps(
    tmp_path_factory: pytest.TempPathFactory,
    scores: list[tuple[float | None, float | None]],
    missing: str,
) -> None:
    rows = [row(n, *pair) for n, pair in enumerate([(1.0, 0.5), *scores])]
    table = table_of(tmp_path_factory.mktemp("sweep"), rows)
    report = sweep(table, AXES, config(missing=missing), shares=SHARES)
    assert len(report.rows) == 16
    for combination in report.rows:
        low, high = combination.shares
        thresholds = {}
        if low:
            thresholds["motion.dis_px"] = Threshold(drop_lowest=low)
        if high:
            thresholds["text.area"] = Threshold(drop_highest=high)
        settings_ = config(thresholds, missing)
        verdicts = judge(rows, resolve_bounds(rows, thresholds), settings_)
        kept = [r for r, verdict in zip(rows, verdicts, strict=True) if verdict.kept]
        assert combination.num_clips == len(kept)
        assert combination.hours == pytest.approx(sum(r.duration_s for r in kept) / 3600, abs=1e-6)


def test_the_recipe_row_is_what_the_filter_stage_keeps(tmp_path: Path) -> None:
    rows = [row(n, float(n % 17), None if n % 5 == 0 else n / 100) for n in range(80)]
    thresholds = {
        "motion.dis_px": Threshold(min=2.0, drop_lowest=0.25),
        "text.area": Threshold(max=0.6),
    }
    settings_ = config(thresholds)
    report = sweep(table_of(tmp_path, rows), AXES, settings_, shares=(0.5,))
    verdicts = judge(rows, resolve_bounds(rows, thresholds), settings_)
    assert report.recipe is not None
    assert report.recipe.num_clips == sum(verdict.kept for verdict in verdicts)


def test_equal_annotations_give_equal_tables(tmp_path: Path) -> None:
    rows = [row(n, float(n), None) for n in range(9)]
    for name in ("a", "b"):
        write_score_table(tmp_path / name / TABLE_NAME, rows)
    one, two = ((tmp_path / name / TABLE_NAME).read_bytes() for name in ("a", "b"))
    assert one == two


@pytest.mark.parametrize(
    ("axes", "shares", "sentence"),
    [
        ((Axis("motion.dix", "lowest"),), SHARES, "no clip has the score motion.dix; clips have: "),
        ((), SHARES, "a sweep takes 1 to 6 scores, not 0"),
        ((AXES[0], AXES[0]), SHARES, "named twice"),
        (AXES, (0.5, 1.5), "between 0 and 1, such as 0.25; given: 1.5"),
    ],
    ids=["unknown-score", "no-score", "twice", "share-out-of-range"],
)
def test_a_sweep_that_means_nothing_is_refused_in_one_sentence(
    tmp_path: Path, axes: tuple[Axis, ...], shares: tuple[float, ...], sentence: str
) -> None:
    table = table_of(tmp_path, [row(0, 1.0, 0.0)])
    with pytest.raises(ConfigError, match=sentence):
        sweep(table, axes, config(), shares=shares)


def test_a_table_that_is_absent_or_damaged_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="run `svd annotate`"):
        ScoreTable.open(tmp_path / TABLE_NAME)
    (tmp_path / TABLE_NAME).write_bytes(b"PAR1 not really")
    with pytest.raises(IntegrityError, match="not a score table"):
        ScoreTable.open(tmp_path / TABLE_NAME)


def test_the_command_prints_a_table_and_writes_json_csv_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    rows = [row(n, n / 10, n / 400) for n in range(40)]
    rows = [
        r.model_copy(
            update={"scores": r.scores | {"look.brightness": 0.5, "look.contrast": n / 40}}
        )
        for n, r in enumerate(rows)
    ]
    write_score_table(tmp_path / "data" / "annotations" / TABLE_NAME, rows)
    ran = CliRunner().invoke(
        app, ["curate", "sweep", "--score", "motion.dis_px", "--score", "text.area:highest"]
    )
    assert ran.exit_code == 0, ran.output
    assert "motion.dis_px" in ran.output
    assert "The recipe's own thresholds keep" in ran.output
    folder = tmp_path / "reports" / "sweep"
    report = SweepReport.parse((folder / "sweep.json").read_text(), origin="sweep.json")
    lines = list(csv.DictReader((folder / "sweep.csv").open()))
    assert [int(line["clips"]) for line in lines] == [r.num_clips for r in report.rows]
    assert json.loads((folder / "sweep.json").read_text())["num_clips"] == 40
    picture = cv2.imread(str(folder / "sweep.png"))
    assert picture.shape[0] > 200
    assert picture.std() > 20
