import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from svd.runtime.guarded import GuardedPool
from svd.runtime.pool import Done, Fault


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
        case "gpu":
            return os.environ["CUDA_VISIBLE_DEVICES"]
        case "look":
            return os.environ["SVD_TEST_WORD"]
    return item.upper()


def run(
    items: list[str], *, workers: int = 2, timeout_s: float = 30.0, memory_mib: int | None = 512
) -> list[Done[str]]:
    pool = GuardedPool(act, workers={"cpu": workers}, memory_mib=memory_mib)
    waiting, finished = list(enumerate(items)), []
    try:
        while len(finished) < len(items):
            while waiting and pool.has_room("cpu"):
                pool.start(*waiting.pop(0), lane="cpu", timeout_s=timeout_s)
            finished += pool.wait()
    finally:
        pool.close()
    return sorted(finished)


def test_every_item_has_its_result() -> None:
    assert run(["a", "b", "c"]) == [Done(0, "A"), Done(1, "B"), Done(2, "C")]


def test_a_pool_at_rest_has_nothing_to_wait_for() -> None:
    assert GuardedPool(act, workers={"cpu": 2}, memory_mib=None).wait() == []


def test_each_worker_with_a_gpu_sees_its_own(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    pool = GuardedPool(act, workers={"gpu": 2}, memory_mib=None)
    assert not pool.has_room("cpu")
    for ticket in range(2):
        pool.start(ticket, "gpu", lane="gpu", timeout_s=30.0)
    assert not pool.has_room("gpu")
    seen = [*pool.wait()]
    seen += pool.wait() if len(seen) < 2 else []
    pool.close()
    assert sorted(done.result for done in seen) == ["5", "7"]


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


ORPHAN = """
import sys, time
from pathlib import Path
from svd.runtime.guarded import GuardedPool
def write(path):
    for number in range(3000):
        Path(path).write_text(str(number))
        time.sleep(0.02)
if __name__ == "__main__":
    pool = GuardedPool(write, workers={"cpu": 1}, memory_mib=512)
    pool.start(0, sys.argv[1], lane="cpu", timeout_s=99)
    pool.wait()
"""


def test_a_killed_parent_leaves_no_process_at_work(tmp_path) -> None:
    script, trace = tmp_path / "orphan.py", tmp_path / "trace"
    script.write_text(ORPHAN)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, script, trace], env=environment)
    deadline = time.monotonic() + 60
    while not trace.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    time.sleep(1.0)
    last = trace.read_text()
    time.sleep(1.0)
    assert trace.read_text() == last
