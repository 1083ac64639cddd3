"""Which tests share a worker of xdist, and what every test leaves as it was.

A worker takes whole files, and one takes all files that share a Prefect server. By a scheduler of
our own: marks of `--dist loadgroup` do nothing under pytest 9.2 with xdist 3.8.
"""

import logging
from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

FLOWS = "tests/flows/"


class ByServer(LoadFileScheduling):
    """Gives a file to one worker, and the flows' files to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        return FLOWS if nodeid.startswith(FLOWS) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)  # there is no such hook under `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Take the place of `--dist loadfile`; any other way to share out the tests stays as asked."""
    return ByServer(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command called in this process has set up: it hides the logs of later tests."""
    logger = logging.getLogger("svd")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
