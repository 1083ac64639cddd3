"""What happened during a run, told to W&B (offline by default) or to nobody."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from svd.types.artifact import Value


@runtime_checkable
class Tracker(Protocol):
    """Where a stage reports what happens while it runs."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Log scalars at a step of the stage; step becomes `train/step`, the x axis."""

    def log_media(self, key: str, path: Path, *, step: int | None = None) -> None:
        """Log a picture or a video file."""

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """Log a small table."""

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Set values that describe the whole run."""


class NullTracker:
    """Tracks nothing: ranks other than 0, and tests."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Ignore."""

    def log_media(self, key: str, path: Path, *, step: int | None = None) -> None:
        """Ignore."""

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """Ignore."""

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Ignore."""
