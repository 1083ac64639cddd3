"""A curation worker stays small, however long the film."""

from pathlib import Path

import pytest

from benchmarks.curation_memory import measure


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_needs_less_than_a_gibibyte_for_two_hours_of_1080p(tmp_path: Path) -> None:
    peaks = dict(measure(tmp_path, minutes=120))
    assert len(peaks) == 5
    assert max(peaks.values()) <= 1024
