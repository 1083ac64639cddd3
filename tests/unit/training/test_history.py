"""Rows say the same whatever interrupted the run."""

import errno
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svd.training.loop.history import (
    LossWindow,
    RowFile,
    bin_names,
    forget_rows_after,
    read_rows,
)
from svd.training.stage.job import HistoryRow


def row(step: int) -> HistoryRow:
    return HistoryRow(
        step=step,
        phase="a",
        examples_seen=step,
        loss=1 / step,
        loss_by_sigma={"sigma<0.1": 1 / 3},
        grad_norm=0.1,
        lr=1e-3,
    )


def test_bins_are_half_open_and_cover_all_levels() -> None:
    assert bin_names()[0] == "sigma<0.1"
    assert bin_names()[-1] == "sigma>=10"
    window = LossWindow().add([1.0, 2.0, 4.0], [0.0999, 0.1, 1e6])
    assert window.by_sigma() == {"sigma<0.1": 1.0, "sigma<0.3": 2.0, "sigma>=10": 4.0}
    assert window.mean == pytest.approx(7 / 3)


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0.01, 99)), min_size=2, max_size=20))
def test_a_window_that_went_through_a_checkpoint_is_the_same(
    examples: list[tuple[float, float]],
) -> None:
    losses, sigmas = zip(*examples, strict=True)
    half = len(losses) // 2
    unbroken = LossWindow().add(losses[:half], sigmas[:half]).add(losses[half:], sigmas[half:])
    saved = LossWindow().add(losses[:half], sigmas[:half]).canonical_json()
    resumed = LossWindow.parse(saved, origin="test").add(losses[half:], sigmas[half:])
    assert resumed == unbroken


def test_rows_after_a_step_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for step in (2, 4, 6):
        RowFile(path).append(row(step))
    forget_rows_after(path, HistoryRow, step=4)
    assert read_rows(path, HistoryRow) == [row(2), row(4)]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    RowFile(path).append(row(2))
    with path.open("a") as file:
        file.write(row(4).canonical_json()[:20])
    assert read_rows(path, HistoryRow) == [row(2)]
    forget_rows_after(path, HistoryRow, step=2)
    RowFile(path).append(row(4))
    assert read_rows(path, HistoryRow) == [row(2), row(4)]


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.jsonl", HistoryRow) == []


def test_rows_that_a_full_disk_refuses_are_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.jsonl"
    rows = RowFile(path)
    rows.append(row(2))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", _open_full)
        rows.append(row(4))
    assert "row not written" in caplog.text
    assert read_rows(path, HistoryRow) == [row(2)]
    rows.append(row(6))
    assert read_rows(path, HistoryRow) == [row(2), row(4), row(6)]


def _open_full(path: Path, mode: str, **_: object) -> IO[str]:
    """Open a file on a disk that takes ten more characters."""
    with open(path, mode) as file:  # noqa: PTH123 (Path.open is what it stands in for)
        file.write(10 * "x")
    raise OSError(errno.ENOSPC, "No space left on device")
