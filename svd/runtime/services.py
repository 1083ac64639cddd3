"""Long-lived local processes: started detached on loopback, stopped with all they started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from svd.errors import LaunchError
from svd.types.base import Record

_GONE_AFTER_S = 10.0  # at most, that a killed process is waited for
STOP_AFTER_S = 15.0  # grace between SIGTERM and SIGKILL


class Service(Record):
    """.svd/services/<name>.json: a process we started.

    The start time guards against a process id that was given to somebody else since.
    """

    name: str
    pid: int
    start_ticks: int  # /proc/<pid>/stat field 22
    url: str | None
    log: str

    @property
    def is_running(self) -> bool:
        """Whether this very process is alive."""
        return _start_ticks(self.pid) == self.start_ticks


def start_service(
    folder: Path,
    name: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    url: str | None = None,
    ready: Callable[[], bool] = lambda: True,
    within_s: float = 90.0,
) -> Service:
    """Start a process that outlives this one and wait until it is ready.

    Args:
        folder: Where its record and its log are kept.
        name: Names the record.
        command: Program and arguments.
        env: Its whole environment.
        cwd: Its working directory.
        url: Address people use, if any.
        ready: Asked until it says yes.
        within_s: Seconds to become ready.

    Raises:
        LaunchError: It ended or was not ready in time; the message names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    ticks = _start_ticks(process.pid)
    if ticks is None:
        raise LaunchError(f"{name} ended at once; see {log}")
    service = Service(name=name, pid=process.pid, start_ticks=ticks, url=url, log=str(log))
    (folder / f"{name}.json").write_text(service.canonical_json(), encoding="utf-8")
    deadline = time.monotonic() + within_s
    while not ready():
        if process.poll() is not None:
            raise LaunchError(f"{name} ended with code {process.returncode}; see {log}")
        if time.monotonic() > deadline:
            stop_service(folder, name)
            raise LaunchError(f"{name} was not ready within {within_s:.0f} s; see {log}")
        time.sleep(0.2)
    return service


def find_service(folder: Path, name: str) -> Service | None:
    """Return a service that is running, else None."""
    record = folder / f"{name}.json"
    if not record.is_file():
        return None
    service = Service.parse(record.read_text(encoding="utf-8"), origin=str(record))
    return service if service.is_running else None


def stop_service(folder: Path, name: str, *, grace_s: float = STOP_AFTER_S) -> bool:
    """Stop a service and everything it started; False if it was not running.

    Args:
        folder: Where its record is kept.
        name: Its name.
        grace_s: Seconds it gets to end by itself before it is killed.
    """
    service = find_service(folder, name)
    if service is None:
        return False
    started = _descendants(service.pid)
    _signal_group(service.pid, signal.SIGTERM)
    _wait_until_gone([service], grace_s)
    if service.is_running:
        _signal_group(service.pid, signal.SIGKILL)
        _wait_until_gone([service], _GONE_AFTER_S)
    _stop_the_rest(started, grace_s)
    (folder / f"{name}.json").unlink(missing_ok=True)
    return True


def free_port(preferred: int) -> int:
    """Return the preferred loopback port if nobody listens there, else a free one."""
    for port in (preferred, 0):
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            # As servers do: connections that have just ended do not hold the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LaunchError("no free port on 127.0.0.1")


class _Started(NamedTuple):
    """A process that a service started, itself or through others."""

    pid: int
    parent: int
    start_ticks: int

    @property
    def is_running(self) -> bool:
        return _start_ticks(self.pid) == self.start_ticks


def _descendants(pid: int) -> list[_Started]:
    """Return what a process has started, whatever group it is in: a flow run has its own."""
    children: dict[int, list[_Started]] = {}
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields is not None:
            found = _Started(int(entry.name), int(fields[1]), int(fields[19]))
            children.setdefault(found.parent, []).append(found)
    reached: list[_Started] = []
    parents = [pid]
    while parents:
        new = children.pop(parents.pop(), [])
        reached += new
        parents += [one.pid for one in new]
    return reached


def _stop_the_rest(started: Sequence[_Started], grace_s: float) -> None:
    """End what outlived its service: the topmost are asked, which end their own children."""
    left = [one for one in started if one.is_running]
    pids = {one.pid for one in left}
    for one in left:
        if one.parent not in pids:
            _signal(one.pid, signal.SIGTERM)
    _wait_until_gone(left, grace_s)
    killed = [one for one in left if one.is_running]
    for one in killed:
        _signal(one.pid, signal.SIGKILL)
    _wait_until_gone(killed, _GONE_AFTER_S)  # until then they may hold their ports


def _wait_until_gone(ending: Sequence[Service | _Started], at_most_s: float) -> None:
    deadline = time.monotonic() + at_most_s
    while any(one.is_running for one in ending) and time.monotonic() < deadline:
        for one in ending:
            _reap(one.pid)
        time.sleep(0.02)


def _signal(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signum)


def _reap(pid: int) -> None:
    """Collect a child of this very process; others are collected by their own parent."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _start_ticks(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat from the state on; None if the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields
