"""Branches of a flow that do not wait for each other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context

from flows.processes import end_all


def side_by_side(*branches: Callable[[], object]) -> None:
    """Run branches in threads that belong to the present flow run, until all of them have ended.

    Raises:
        BaseException: That of the first branch that failed, in the order they were given.
    """
    pool = ThreadPoolExecutor(len(branches))
    futures = [pool.submit(copy_context().run, branch) for branch in branches]
    try:
        wait(futures)
    except BaseException:  # this run is cancelled; a signal reaches the main thread only
        end_all()
        raise
    finally:
        pool.shutdown()
    for future in futures:
        future.result()
