import logging
import re

import pytest

from svd.runtime import progress
from svd.runtime.progress import Meter, track


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Progress lines, one for every step."""
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    caplog.set_level(logging.INFO, logger="svd.runtime.progress")
    return lambda: [record.getMessage() for record in caplog.records]


def shares(lines: list[str]) -> list[int]:
    return [int(re.search(r"\((\d+) %\), about \d+ s left$", line)[1]) for line in lines]


def test_items_are_counted_and_their_cost_says_how_far_it_is(lines) -> None:
    with Meter("decoding", unit="videos") as meter:
        meter.expect(9.0)
        meter.expect(1.0)
        meter.advance(9.0)
        meter.advance(1.0)
    assert lines()[0].startswith("decoding: 1/2 videos (90 %), about ")
    assert shares(lines()) == [90, 100]


def test_what_comes_to_light_on_the_way_is_still_to_do(lines) -> None:
    with Meter("decoding", unit="videos") as meter:
        meter.expect(1.0)
        meter.expect(3.0)
        meter.advance(1.0)
        meter.advance(3.0)
    assert shares(lines()) == [25, 100]


def test_tracked_items_come_through_in_order(lines) -> None:
    assert list(track("abc", total=3, description="spelling", unit="letters")) == list("abc")
    assert shares(lines()) == [33, 67, 100]
