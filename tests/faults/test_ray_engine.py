"""A real Ray cluster of two workers: the same results and the same faults as on local processes."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from svd.config.engine import EngineConfig  # noqa: E402 - after the check that there is a Ray
from svd.curation.engine import Outcome, Unit, run_units  # noqa: E402
from svd.errors import MediaError, MissingInputError  # noqa: E402

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,  # the byte-for-byte comparison in test_curation_faults.py is not
    pytest.mark.timeout(300),
]

TWO = EngineConfig(kind="ray", num_workers=2, num_gpus=1, timeout_s=20.0, max_attempts=2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Actors find this module by name."""
    here = str(Path(__file__).parent)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{here}{os.pathsep}{before}"
    yield
    os.environ["PYTHONPATH"] = before
    ray.shutdown()


def act(order: str) -> str:
    """Do what the payload says; runs in an actor."""
    verb, _, rest = order.partition(" ")
    if verb == "fail":
        raise MediaError("a.mp4", "no-frames", rest)
    if verb == "lack":
        raise MissingInputError(rest)
    if verb == "hang":
        time.sleep(600)
    if verb == "gpu":
        return os.environ["CUDA_VISIBLE_DEVICES"]
    if verb == "die" or (verb == "die-once" and not Path(rest).exists()):
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{verb} done"


def run(orders: dict[str, str], config: EngineConfig = TWO, **options: Path) -> dict[str, str]:
    units = [Unit(key, 1.0, order) for key, order in orders.items()]
    outcomes: list[Outcome[str]] = list(
        run_units(act, units, config, description="testing", **options)
    )
    return {o.key: o.failure.reason if o.failure else str(o.result) for o in outcomes}


def test_actors_have_the_same_outcomes_as_processes(tmp_path: Path) -> None:
    orders = {"a": "go", "b": "fail empty", "c": f"die-once {tmp_path / 'once'}", "d": "go"}
    expected = {"a": "go done", "b": "no-frames", "c": "die-once done", "d": "go done"}
    assert run(orders) == expected


def test_an_actor_that_dies_or_hangs_is_poison_and_the_others_finish(tmp_path: Path) -> None:
    config = TWO.model_copy(update={"timeout_s": 2.0, "max_attempts": 1})
    poison = tmp_path / "poison.jsonl"
    orders = {"a": f"die {tmp_path / 'x'}", "b": "hang", "c": "go", "d": "go"}
    found = run(orders, config, poison_list=poison)
    assert found == {"a": "crashed", "b": "timeout", "c": "go done", "d": "go done"}
    assert run(orders, config, poison_list=poison) == found


def test_units_that_want_a_gpu_run_in_actors_that_have_one() -> None:
    units = [Unit("g", 1.0, "gpu", lane="gpu"), Unit("c", 1.0, "go")]
    outcomes = list(run_units(act, units, TWO, description="testing"))
    assert {o.key: o.result for o in outcomes} == {"g": "0", "c": "go done"}


def test_what_no_unit_can_do_without_stops_the_run_with_its_sentence() -> None:
    with pytest.raises(MissingInputError, match="weights"):
        run({"a": "lack weights", "b": "go"})
