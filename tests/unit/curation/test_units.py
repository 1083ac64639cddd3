import os
import signal
import time
from pathlib import Path

import pytest

from svd.config.curation import WorkersConfig
from svd.curation.engine import Outcome, Unit, forget_poison, run_units
from svd.errors import MediaError

ONE = WorkersConfig(num=1, timeout_s=30.0, max_attempts=2)


def act(order: str) -> str:
    """Do what the payload says; runs in a worker."""
    verb, _, rest = order.partition(" ")
    if verb == "fail":
        raise MediaError("a.mp4", "no-frames", rest)
    if verb == "bug":
        raise ValueError(rest)
    if verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "hang":
        time.sleep(600)
    if verb == "die-once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{verb} done"


def run(orders: dict[str, str], config: WorkersConfig = ONE, **options: Path) -> list[Outcome[str]]:
    units = [
        Unit(key, float(len(orders) - n), order) for n, (key, order) in enumerate(orders.items())
    ]
    found = run_units(act, units, config, description="testing", **options)
    return sorted(found, key=lambda outcome: outcome.key)


def reasons(outcomes: list[Outcome[str]]) -> dict[str, str]:
    return {o.key: o.failure.reason if o.failure else str(o.result) for o in outcomes}


def test_a_bad_unit_is_a_failure_with_its_reason_and_the_rest_is_done() -> None:
    outcomes = run({"a": "go", "b": "fail empty", "c": "go"})
    assert reasons(outcomes) == {"a": "go done", "b": "no-frames", "c": "go done"}


def test_a_killed_worker_costs_its_unit_one_attempt(tmp_path: Path) -> None:
    outcomes = run({"a": f"die-once {tmp_path / 'mark'}", "b": "go"})
    assert reasons(outcomes) == {"a": "die-once done", "b": "go done"}


def test_what_kills_or_hangs_its_worker_is_poison_and_not_tried_again(tmp_path: Path) -> None:
    poison = tmp_path / "poison.jsonl"
    config = WorkersConfig(num=2, timeout_s=1.0, max_attempts=1)
    first = run({"a": "die", "b": "hang", "c": "go"}, config, poison_list=poison)
    assert reasons(first) == {"a": "crashed", "b": "timeout", "c": "go done"}
    started = time.monotonic()
    again = run({"a": "go", "b": "go", "c": "go"}, config, poison_list=poison)
    assert reasons(again) == reasons(first)
    assert time.monotonic() - started < 60
    assert forget_poison(poison) == 2
    healed = run({"a": "go", "b": "go"}, config, poison_list=poison)
    assert reasons(healed) == {"a": "go done", "b": "go done"}


def test_a_programming_error_stops_the_run() -> None:
    with pytest.raises(ValueError, match="a slip"):
        run({"a": "bug a slip"})


def test_the_longest_unit_starts_first(tmp_path: Path) -> None:
    units = [Unit(name, cost, "go") for name, cost in (("s", 1.0), ("l", 9.0), ("m", 5.0))]
    done = [outcome.key for outcome in run_units(act, units, ONE, description="testing")]
    assert done == ["l", "m", "s"]
