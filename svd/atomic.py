"""Files and folders that are there whole or not at all: written as `*.partial`, then renamed.

A write that fails takes its `*.partial` away; what a killed process leaves there, the next write of
the same name goes over. Nothing reads or fingerprints such names, and DVC ignores them.

The temporary name follows from the final one, so a path has one writer at a time. Where several may
race, the writer chooses a name of its own (`svd.runtime.storage_s3`, `svd.data.lineage`).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside a file that it replaces at the end; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill, beside the one that it replaces at the end."""
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    partial.replace(path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
