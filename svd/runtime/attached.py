"""Processes that never outlive the one that started them, however it died."""

import os
import signal
import threading
import time

WATCH_EVERY_S = 0.2


def die_with_parent() -> None:
    """Kill this process (SIGKILL) soon after its parent is gone.

    A parent that is itself killed cannot tell its children, and an orphaned rank would go on
    writing checkpoints beside the run that replaced it. Polling works on every Unix and does not
    depend on which thread of the parent started us, as Linux's PR_SET_PDEATHSIG does.
    """
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), name="die-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)
