import os
import signal
import time

import numpy as np
import pytest

from svd.runtime.guarded import Done, Fault, run_guarded


def act(item: str) -> str:
    match item:
        case "hang":
            time.sleep(60)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "fail":
            raise ValueError("a programming error")
        case "gorge":
            try:
                np.ones(1 << 30, np.uint8)
            except MemoryError:
                return "no memory"
        case "look":
            return os.environ["SVD_TEST_WORD"]
    return item.upper()


def run(items: list[str], **options: float) -> list[Done[str]]:
    settings = {"workers": 2, "timeout_s": 30.0, "memory_mib": 512} | options
    return sorted(run_guarded(act, items, **settings))


def test_every_item_has_its_result() -> None:
    assert run(["a", "b", "c"]) == [Done(0, "A"), Done(1, "B"), Done(2, "C")]


def test_no_items_start_no_process() -> None:
    assert run([]) == []


def test_a_task_that_hangs_is_killed_and_the_others_finish() -> None:
    started = time.monotonic()
    outcomes = run(["hang", "a", "b"], timeout_s=2.0)
    assert outcomes[0].result == Fault("timeout", "not finished within 2 s")
    assert [done.result for done in outcomes[1:]] == ["A", "B"]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("item", "how"), [("die", "signal 9"), ("exit", "exit code 3")])
def test_a_task_that_ends_its_process_is_a_fault(item: str, how: str) -> None:
    outcomes = run([item, "a", "b"], workers=1)
    assert outcomes[0].result == Fault("crashed", f"its process ended with {how}")
    assert [done.result for done in outcomes[1:]] == ["A", "B"]


def test_an_exception_of_the_function_ends_the_run() -> None:
    with pytest.raises(ValueError, match="a programming error"):
        run(["fail"])


def test_memory_beyond_the_limit_is_refused() -> None:
    assert run(["gorge"]) == [Done(0, "no memory")]


@pytest.mark.parametrize("word", ["first", "second"])
def test_a_process_sees_its_parents_environment_of_now(monkeypatch, word: str) -> None:
    monkeypatch.setenv("SVD_TEST_WORD", word)
    assert run(["look"]) == [Done(0, word)]
