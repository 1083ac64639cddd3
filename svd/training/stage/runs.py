"""Training runs on disk: which there are, who works on one, and what one went on from."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from svd.errors import IntegrityError, LaunchError
from svd.training.stage.job import Adoption, RunFolder, TrainingJob
from svd.types.base import read_records

logger = logging.getLogger(__name__)


@contextmanager
def only_here(folder: RunFolder) -> Iterator[None]:
    """Hold a run's lock, so that no other process works on it.

    Raises:
        LaunchError: Another process holds it.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as err:
        raise LaunchError(
            f"run {folder.path.name} is at work: another process runs this job: {folder.lock} is "
            "held"
        ) from err
    try:
        yield
    finally:
        lock.release()


def read_jobs(runs: Path) -> Iterator[TrainingJob]:
    """Yield the jobs of all training runs, the one worked on last at the end."""
    for path in sorted(runs.glob("*/job.json"), key=lambda path: path.stat().st_mtime):
        try:
            yield TrainingJob.parse(path.read_text(encoding="utf-8"), origin=str(path))
        except IntegrityError:  # of another version of svd, whose runs this one does not resume
            logger.warning("run left out: its job is not of this version", extra={"job": path})


def read_adoptions(folder: RunFolder) -> list[Adoption]:
    """Return what a run went on from, the first at the front; nothing for most runs."""
    return list(read_records(folder.adoption, Adoption)) if folder.adoption.is_file() else []
