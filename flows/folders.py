"""Which stages may run at once in one checkout: those that do not write what another one uses.

Each folder that a stage makes has a lock file. A stage holds those of its inputs together with
other readers, and those of its outputs alone. The stage's processes inherit the descriptors, so a
lock is free exactly when the last of them is gone, however they ended.
"""

import contextlib
import fcntl
from collections.abc import Iterable, Iterator

from prefect import get_run_logger

from svd.runtime.graph import read_graph
from svd.runtime.workspace import Workspace


@contextlib.contextmanager
def hold_folders(workspace: Workspace, stages: Iterable[str]) -> Iterator[tuple[int, ...]]:
    """Wait until nobody stands in the way of stages; yield descriptors that keep it so."""
    graph = read_graph(workspace.root)
    nodes = [graph[stage] for stage in stages]
    alone = {path: fcntl.LOCK_EX for node in nodes for path in node.writes}
    modes = {path: fcntl.LOCK_SH for node in nodes for path in node.reads} | alone
    folder = workspace.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        held = []
        for path, mode in sorted(modes.items()):  # all in one order, so that no two wait in a ring
            file = stack.enter_context((folder / path.replace("/", "--")).open("w"))
            _lock(file.fileno(), mode, path)
            held.append(file.fileno())
        yield tuple(held)


def _lock(descriptor: int, mode: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        get_run_logger().info("waiting: another stage uses %s", path)
        fcntl.flock(descriptor, mode)
