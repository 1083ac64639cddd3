"""Sources that were taken down: the list in git that ingest obeys."""

import os
from pathlib import Path

from svd.errors import ConfigError, IntegrityError
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.video import WithdrawnVideo


def read_withdrawn(workspace: Workspace) -> dict[str, WithdrawnVideo]:
    """Return what must not be used any more, by video id; nothing if there is no list.

    Raises:
        ConfigError: The list is damaged: going on would use what was withdrawn.
    """
    if not workspace.withdrawn.is_file():
        return {}
    try:
        entries = list(read_records(workspace.withdrawn, WithdrawnVideo))
    except IntegrityError as err:
        raise ConfigError(f"{err}; mend the line, or restore the file from git") from err
    return {entry.video_id: entry for entry in entries}


def withdraw(workspace: Workspace, entry: WithdrawnVideo) -> bool:
    """Add a video to the list; False if it is on it already.

    Raises:
        ConfigError: The list is damaged.
    """
    if entry.video_id in read_withdrawn(workspace):
        return False
    _append_line(workspace.withdrawn, entry.canonical_json())
    return True


def _append_line(path: Path, line: str) -> None:
    """Add a line in one write, so that a reader sees it whole or not at all."""
    before = path.read_bytes() if path.is_file() else b""
    end = b"" if before.endswith(b"\n") or not before else b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(end + line.encode() + b"\n")
        os.fsync(file.fileno())
