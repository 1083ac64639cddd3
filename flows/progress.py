"""A stage's progress on the Prefect server: one artifact, moved along by the stage's log lines."""

import re
from typing import Final, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

# As svd.runtime.log and progress.Meter write it:
# "12:00:00 INFO    decoding: 12/120 segments (10 %), about 40 s left".
LINE: Final = re.compile(
    r" INFO +(?P<what>[^:]+: \d+/\d+ .+?) \((?P<percent>\d+) %\), about (?P<left_s>\d+) s left$"
)


def artifact_key(kind: str, stage: str) -> str:
    """Return the key of a stage's artifact; Prefect allows letters, digits and dashes."""
    return f"{kind}-{stage.replace('@', '-')}"


class StageProgress:
    """Follows one run of a stage; its artifact appears with the first progress line."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._artifact: UUID | None = None

    def follow(self, line: str) -> None:
        """Move the artifact on if the line tells of progress."""
        said = LINE.search(line)
        if said is None:
            return
        percent = float(said["percent"])
        description = f"{said['what']}, about {_duration(int(said['left_s']))} left"
        try:
            self._show(percent, description)
        except httpx.HTTPError as err:  # the stage matters more than its progress
            get_run_logger().warning("progress is not shown: %s", err)

    def _show(self, percent: float, description: str) -> None:
        if self._artifact is not None:
            update_progress_artifact(self._artifact, percent, description=description)
            return
        made = create_progress_artifact(
            percent, key=artifact_key("progress", self._stage), description=description
        )
        self._artifact = cast("UUID", made)  # a coroutine only where an event loop runs


def _duration(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
