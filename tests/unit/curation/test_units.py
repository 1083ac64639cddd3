import errno
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from svd.config.engine import EngineConfig
from svd.curation.engine import Outcome, Unit, forget_poison, run_units
from svd.errors import ConfigError, MediaError, MissingInputError
from svd.runtime.spent import WORKERS

ONE = EngineConfig(num_workers=1, timeout_s=30.0, max_attempts=2)


def act(order: str) -> str:
    """Do what the payload says; runs in a worker."""
    verb, _, rest = order.partition(" ")
    if verb == "fail":
        raise MediaError("a.mp4", "no-frames", rest)
    if verb == "bug":
        raise ValueError(rest)
    if verb == "lack":
        raise MissingInputError(rest)
    if verb == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if verb == "nap":
        time.sleep(float(rest))
    if verb == "work":
        stop = time.process_time() + float(rest)
        while time.process_time() < stop:
            pass
    if verb == "gpu":
        return os.environ["CUDA_VISIBLE_DEVICES"]
    if verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "hang":
        time.sleep(600)
    if verb == "die-once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{verb} done"


def run(orders: dict[str, str], config: EngineConfig = ONE, **options: Path) -> list[Outcome[str]]:
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
    config = EngineConfig(num_workers=2, timeout_s=4.0, max_attempts=1)
    first = run({"a": "die", "b": "hang", "c": "go"}, config, poison_list=poison)
    assert reasons(first) == {"a": "crashed", "b": "timeout", "c": "go done"}
    started = time.monotonic()
    again = run({"a": "go", "b": "go", "c": "go"}, config, poison_list=poison)
    assert reasons(again) == reasons(first)
    assert time.monotonic() - started < 60
    assert forget_poison(poison) == 2
    healed = run({"a": "go", "b": "go"}, config, poison_list=poison)
    assert reasons(healed) == {"a": "go done", "b": "go done"}


def test_a_bug_that_one_file_finds_is_a_record_with_its_place() -> None:
    failure = run({"a": "bug a slip", "b": "go"})[0].failure
    assert failure is not None
    assert failure.reason == "internal-error"
    assert re.fullmatch(r"ValueError at test_units.py:\d+: a slip", failure.detail)


def test_a_bug_that_every_unit_finds_stops_the_run() -> None:
    with pytest.raises(RuntimeError, match="a slip"):
        run({"a": "bug a slip", "b": "bug a slip"})


def test_what_no_unit_can_do_without_stops_the_run() -> None:
    with pytest.raises(MissingInputError, match="weights"):
        run({"a": "lack weights", "b": "go"})


def test_a_full_disk_is_no_fault_of_the_unit() -> None:
    with pytest.raises(OSError, match="No space left"):
        run({"a": "full", "b": "go"})


def test_what_a_unit_makes_possible_is_done_too_and_first() -> None:
    def follow(outcome: Outcome[str]) -> list[Unit[str]]:
        if outcome.key != "a":
            return []
        return [Unit("a/late", 0.0, "go"), Unit("a/soon", 0.0, "go", rank=1)]

    units = [Unit("a", 9.0, "go"), Unit("b", 1.0, "go")]
    done = [o.key for o in run_units(act, units, ONE, description="testing", follow=follow)]
    assert done == ["a", "a/soon", "b", "a/late"]


def test_a_unit_that_cannot_be_split_may_have_more_time() -> None:
    config = EngineConfig(num_workers=1, timeout_s=2.0, max_attempts=1)
    units = [Unit("a", 2.0, "nap 3", patience=20.0), Unit("b", 1.0, "nap 60")]
    outcomes = list(run_units(act, units, config, description="testing"))
    assert reasons(outcomes) == {"a": "nap done", "b": "timeout"}


def test_units_that_want_a_gpu_get_workers_of_their_own(monkeypatch) -> None:
    config = EngineConfig(num_workers=1, num_gpus=1)
    units = [Unit("a", 1.0, "gpu", lane="gpu"), Unit("b", 1.0, "go")]
    outcomes = list(run_units(act, units, config, description="testing"))
    assert reasons(outcomes) == {"a": "0", "b": "go done"}
    with pytest.raises(ConfigError, match=r"engine\.num_gpus is 0"):
        list(run_units(act, units, ONE, description="testing"))


def test_the_processor_time_of_workers_is_counted() -> None:
    before = WORKERS.cpu_s
    run({"a": "work 0.2", "b": "work 0.1", "c": "nap 0.5"})
    assert 0.3 <= WORKERS.cpu_s - before < 0.5


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "svd.runtime.ray_pool", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'svd\[cluster\]'"):
        run({"a": "go"}, EngineConfig(kind="ray"))


def test_the_longest_unit_starts_first(tmp_path: Path) -> None:
    units = [Unit(name, cost, "go") for name, cost in (("s", 1.0), ("l", 9.0), ("m", 5.0))]
    done = [outcome.key for outcome in run_units(act, units, ONE, description="testing")]
    assert done == ["l", "m", "s"]
