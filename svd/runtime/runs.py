"""Reading W&B's offline runs without a server: what was tracked, attempt by attempt.

A killed stage that resumes writes a second folder under the same run id. What belongs together
is put together here: curves by `train/step`, the rest from the last attempt that said it.
Source of the format: `wandb leet inspect --json`, one JSON record per line.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from svd.errors import MissingInputError, StoreError
from svd.runtime.checkout import checkouts
from svd.runtime.cost import COST, DEVICE_HOURS, price_per_device_hour
from svd.runtime.tracking import STEP
from svd.runtime.workspace import Workspace
from svd.types.artifact import Value
from svd.types.base import Record

State = Literal["finished", "failed", "unfinished"]
logger = logging.getLogger(__name__)

# wandb 0.31 was seen to spin for ever on a file that it read at once when asked again.
_INSPECT_ATTEMPTS: Final = 3
_INSPECT_WITHIN_S: Final = 30.0
_READERS: Final = 2  # processes of `wandb leet` at once; each takes most of a core for a second


class Media(Record):
    """A picture, video or table that was logged."""

    key: str
    kind: str  # W&B's own word, e.g. "image-file", "video-file", "table-file"
    path: str  # below the project's root
    step: int | None


class Attempt(Record):
    """One process that tracked a run; a resumed run has several."""

    folder: str  # below the project's root
    run_id: str
    name: str
    group: str
    started_at: str  # ISO 8601
    ended_s: float = Field(ge=0)  # seconds from its start to the last thing it said
    exit_code: int | None  # None while it runs, or if it was killed
    config: dict[str, Any]
    summary: dict[str, Value]
    curves: dict[str, tuple[tuple[float, float], ...]]  # key -> (step, value)
    media: tuple[Media, ...]


class Run(Record):
    """A run: its attempts, oldest first, and what they say together."""

    run_id: str
    attempts: tuple[Attempt, ...] = Field(min_length=1)

    @property
    def name(self) -> str:
        """The stage."""
        return self.attempts[-1].name

    @property
    def group(self) -> str:
        """The pipeline run."""
        return self.attempts[-1].group

    @property
    def state(self) -> State:
        """How it stands; a killed run cannot be told from a running one."""
        code = self.attempts[-1].exit_code
        return "unfinished" if code is None else "failed" if code else "finished"

    @property
    def started_at(self) -> str:
        """When its first attempt began, ISO 8601."""
        return self.attempts[0].started_at

    @property
    def busy_s(self) -> float:
        """Seconds spent over all attempts."""
        return sum(attempt.ended_s for attempt in self.attempts)

    @property
    def device_hours(self) -> float | None:
        """Hours times GPUs (ranks, where training has none) over all attempts; None if not told.

        Training tells the sum so far with every row and at its end. Other stages tell what an
        attempt has used at its end.
        """
        if DEVICE_HOURS in self.curves:
            return self._sum_so_far(DEVICE_HOURS)
        told = [a.summary[DEVICE_HOURS] for a in self.attempts if DEVICE_HOURS in a.summary]
        return sum(float(hours) for hours in told) if told else None

    @property
    def cost(self) -> float | None:
        """What that cost, at the price of its time; else at SVD_PRICE_PER_DEVICE_HOUR, if set."""
        if COST in self.curves:
            return self._sum_so_far(COST)
        price, hours = price_per_device_hour(), self.device_hours
        return None if price is None or hours is None else hours * price

    def _sum_so_far(self, key: str) -> float:
        at_ends = [float(a.summary[key]) for a in self.attempts if key in a.summary]
        return max([*(value for _, value in self.curves[key]), *at_ends])

    @property
    def config(self) -> dict[str, Any]:
        """What it was run with."""
        return self.attempts[-1].config

    @property
    def summary(self) -> dict[str, Value]:
        """Values that describe the whole run."""
        return {key: value for a in self.attempts for key, value in a.summary.items()}

    @property
    def media(self) -> tuple[Media, ...]:
        """All pictures, videos and tables, in the order they were logged."""
        return tuple(item for attempt in self.attempts for item in attempt.media)

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Key -> (step, value) by rising step; of a repeated step the last attempt counts."""
        merged: dict[str, dict[float, float]] = {}
        for attempt in self.attempts:
            for key, points in attempt.curves.items():
                merged.setdefault(key, {}).update(points)
        return {key: sorted(points.items()) for key, points in sorted(merged.items())}


def read_runs(workspace: Workspace) -> list[Run]:
    """Return the runs below `wandb/`, the newest first; those of the checkouts beside this one too.

    Raises:
        StoreError: `wandb leet inspect` cannot read one of them.
    """
    roots = [workspace.root, *(there.root for there in checkouts(workspace))]
    logs = [path for root in roots for path in (root / "wandb").glob("*run-*/*.wandb")]
    folders = [path.parent for path in sorted(logs)]
    with ThreadPoolExecutor(_READERS) as pool:
        attempts = list(pool.map(lambda folder: read_attempt(workspace, folder), folders))
    by_id: dict[str, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda a: (a.started_at, a.folder)):
        by_id.setdefault(attempt.run_id, []).append(attempt)
    runs = [Run(run_id=run_id, attempts=tuple(found)) for run_id, found in by_id.items()]
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


def find_run(runs: Sequence[Run], wanted: str) -> Run:
    """Return the run of this id, or the newest whose id or stage starts with these letters.

    Raises:
        MissingInputError: No run does.
    """
    exact = [run for run in runs if run.run_id == wanted]
    matching = exact or [run for run in runs if run.run_id.startswith(wanted)]
    if not matching:
        known = ", ".join(run.run_id for run in runs[:8]) or "none yet"
        raise MissingInputError(f"no run {wanted!r} below wandb/; there are: {known}")
    return matching[0]


def read_attempt(workspace: Workspace, folder: Path) -> Attempt:
    """Read one folder of W&B; what was read before is kept and taken from there.

    Raises:
        StoreError: `wandb leet inspect` failed.
    """
    log = next(iter(folder.glob("*.wandb")))
    stat = log.stat()
    kept = workspace.state / "runs" / f"{folder.name}-{stat.st_size}-{stat.st_mtime_ns}.json"
    if kept.is_file():
        try:
            return Attempt.model_validate_json(kept.read_text(encoding="utf-8"))
        except ValidationError:
            kept.unlink()  # written by another version of this file
    place = folder.relative_to(workspace.root).as_posix()
    attempt = parse_attempt(_inspect(folder), folder=place)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(attempt.model_dump_json(), encoding="utf-8")
    return attempt


def parse_attempt(lines: Iterable[str], *, folder: str) -> Attempt:
    """Read the records of one W&B log.

    Args:
        lines: As `wandb leet inspect --json` prints them.
        folder: Where the log lies, below the project's root.
    """
    run: dict[str, Any] = {}
    summary: dict[str, Value] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    media: list[Media] = []
    ended_s, exit_code = 0.0, None
    for line in lines:
        record = json.loads(line)
        body = record.get(record["type"]) or {}
        if record["type"] == "run":
            run = body
        elif record["type"] == "summary":
            summary.update(_plain(body.get("update") or {}))
        elif record["type"] == "history":
            item = body["item"]
            _add_points(curves, item)
            media.extend(_media(item, folder))
        elif record["type"] == "exit":
            exit_code = int(body.get("exit_code", 0))
        ended_s = max(ended_s, _elapsed_s(record["type"], body, run))
    return Attempt(
        folder=folder,
        run_id=str(run.get("run_id", folder.rpartition("-")[2])),
        name=str(run.get("display_name", "")),
        group=str(run.get("run_group", "")),
        started_at=_started_at(run),
        ended_s=ended_s,
        exit_code=exit_code,
        config=_without_own((run.get("config") or {}).get("update") or {}),
        summary=summary,
        curves={key: tuple(points) for key, points in curves.items()},
        media=tuple(media),
    )


def _inspect(folder: Path) -> list[str]:
    wandb = Path(sys.executable).parent / "wandb"
    command = [str(wandb), "leet", "inspect", "--json", str(folder)]
    for _ in range(_INSPECT_ATTEMPTS):
        # A session of its own, because wandb starts a program that would outlive it.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=_INSPECT_WITHIN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                logger.warning("wandb did not answer", extra={"folder": str(folder)})
                continue
        if process.returncode:
            raise StoreError(f"{folder}: wandb cannot read it: {errors.strip()[-300:]}")
        return output.splitlines()
    raise StoreError(f"{folder}: wandb did not answer within {_INSPECT_WITHIN_S:.0f} s")


def _add_points(curves: dict[str, list[tuple[float, float]]], item: Mapping[str, object]) -> None:
    step = item.get(STEP)
    if not isinstance(step, int | float):
        return
    for key, value in item.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and key != STEP and not key.startswith("_") and not _is_part(key, item):
            curves.setdefault(key, []).append((float(step), float(value)))  # type: ignore[arg-type]


def _is_part(key: str, item: Mapping[str, object]) -> bool:
    """Whether a key is a detail of a logged medium, such as its width."""
    return f"{key.rpartition('.')[0]}._type" in item


def _media(item: Mapping[str, Any], folder: str) -> list[Media]:
    step = item.get(STEP)
    return [
        Media(
            key=key.removesuffix("._type"),
            kind=str(kind),
            path=f"{folder}/files/{item[key.removesuffix('_type') + 'path']}",
            step=int(step) if isinstance(step, int | float) else None,
        )
        for key, kind in item.items()
        if key.endswith("._type") and key.removesuffix("_type") + "path" in item
    ]


def _plain(update: Mapping[str, Any]) -> dict[str, Value]:
    """Return what is a plain value and not W&B's own."""
    return {
        key: value
        for key, value in update.items()
        if isinstance(value, int | float | str | bool)
        and not key.startswith("_")
        and key != STEP
        and not _is_part(key, update)
    }


def _elapsed_s(kind: str, body: Mapping[str, Any], run: Mapping[str, Any]) -> float:
    """Return how long after the start a record was written, as far as it tells.

    The last record of a run that ended tells; of a killed one, its last row, its last line of
    output or the last look at the machine, which W&B takes every quarter of a minute.
    """
    if kind == "exit":
        return float(body.get("runtime", 0.0))
    if kind == "history":
        return float(body["item"].get("_runtime", 0.0))
    if kind in {"stats", "output_raw"} and "timestamp" in body and "start_time" in run:
        written = datetime.fromisoformat(body["timestamp"])
        return (written - datetime.fromisoformat(run["start_time"])).total_seconds()
    return 0.0


def _without_own(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _started_at(run: Mapping[str, Any]) -> str:
    text = str(run.get("start_time", "1970-01-01T00:00:00Z"))
    return datetime.fromisoformat(text).isoformat(timespec="seconds")
