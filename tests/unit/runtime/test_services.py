"""Services outlive their starter, are found again, and are stopped with all they started."""

import os
import subprocess
import sys
import time

import pytest

from svd.errors import LaunchError
from svd.runtime.services import find_service, free_port, start_service, stop_service

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = """
import subprocess, sys, time
sleep = [sys.executable, '-c', {body!r}]
child = subprocess.Popen(sleep, start_new_session={own_group})
print(child.pid, flush=True)
time.sleep(60)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def alive(pid: int) -> bool:
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(command, capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def test_a_service_is_found_until_it_is_stopped(tmp_path):
    service = start_service(tmp_path, "s", SLEEPER, env=os.environ, cwd=tmp_path)
    assert find_service(tmp_path, "s") == service
    assert stop_service(tmp_path, "s")
    assert find_service(tmp_path, "s") is None
    assert not stop_service(tmp_path, "s")


@pytest.mark.parametrize("own_group", [False, True], ids=["same group", "group of its own"])
@pytest.mark.parametrize("body", ["import time; time.sleep(60)", DEAF], ids=["sleeps", "deaf"])
def test_stopping_ends_the_children_too(tmp_path, body, own_group):
    command = [sys.executable, "-c", PARENT.format(body=body, own_group=own_group)]
    service = start_service(tmp_path, "p", command, env=os.environ, cwd=tmp_path)
    log = tmp_path / "p.log"
    while not log.read_text().strip():
        time.sleep(0.05)
    child = int(log.read_text())
    time.sleep(0.3)  # until a deaf child does not hear any more
    assert alive(child)
    stop_service(tmp_path, "p", grace_s=1)
    assert not alive(service.pid)
    assert not alive(child)


def test_a_reused_process_id_is_not_mistaken_for_the_service(tmp_path):
    service = start_service(tmp_path, "s", SLEEPER, env=os.environ, cwd=tmp_path)
    stranger = service.model_copy(update={"start_ticks": service.start_ticks + 1})
    (tmp_path / "s.json").write_text(stranger.canonical_json())
    assert find_service(tmp_path, "s") is None
    (tmp_path / "s.json").write_text(service.canonical_json())
    assert stop_service(tmp_path, "s")


def test_a_service_that_ends_early_is_an_error_that_names_the_log(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(0.3); raise SystemExit(3)"]
    with pytest.raises(LaunchError, match=r"code 3.*s\.log"):
        start_service(tmp_path, "s", command, env=os.environ, cwd=tmp_path, ready=lambda: False)


def test_a_taken_port_is_replaced_by_a_free_one():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        assert free_port(busy) != busy
