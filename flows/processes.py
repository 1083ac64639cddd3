"""The processes of stages that run now, each a group of its own; a cancelled run ends them all."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

KILL_AFTER_S: Final = 60.0  # a training stage saves its state on SIGTERM

_running: Final[set["subprocess.Popen[str]"]] = set()
_cancelled: Final = threading.Event()


class Running:
    """A process and what it prints."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.ran_out_of_time = False

    @property
    def lines(self) -> Iterator[str]:
        """Its output, line by line, until it has ended."""
        for line in self._process.stdout or ():
            yield line.rstrip()
        self._process.wait()

    @property
    def exit_code(self) -> int:
        """Its exit code, once the lines have ended."""
        return int(self._process.returncode)

    def stop_for_time(self) -> None:
        """End it because its time is over."""
        self.ran_out_of_time = True
        _end_group(self._process)


@contextlib.contextmanager
def start(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    holds: tuple[int, ...],
    timeout_s: float | None,
) -> Iterator[Running]:
    """Run a command for the length of a block, at whose end its whole group is gone.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        environment: All of it.
        holds: Descriptors of locks that it keeps as long as it lives.
        timeout_s: After this it is asked to end; None is no limit.
    """
    process = subprocess.Popen(
        list(command),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=holds,
    )
    running = Running(process)
    timer = threading.Timer(timeout_s or 0.0, running.stop_for_time)
    _running.add(process)
    if timeout_s is not None:
        timer.start()
    try:
        yield running
    finally:
        timer.cancel()
        _end_group(process)
        _running.discard(process)


def end_all() -> None:
    """End every process of this run, in good order; none is started again."""
    _cancelled.set()
    for process in tuple(_running):
        _end_group(process)


def is_cancelled() -> bool:
    """Whether `end_all` was called."""
    return _cancelled.is_set()


def _end_group(process: "subprocess.Popen[str]") -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
