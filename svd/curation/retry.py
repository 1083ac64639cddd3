"""Another try for what failed in a stage of curation, without doing the rest again."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar, get_args

from svd.atomic import new_file
from svd.curation.clip.job import DONE, POISON
from svd.curation.engine import Failure, forget_poison
from svd.curation.ingest.examine import Examined
from svd.curation.ingest.stage import EXAMINED, VIDEOS
from svd.errors import MissingInputError
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.workspace import Workspace
from svd.types.base import Record, read_records
from svd.types.stage import StageRun
from svd.types.video import RejectedFile

R = TypeVar("R", bound=Record)
RetryStage = Literal["ingest", "clip", "annotate"]
RETRY_STAGES: Final[tuple[RetryStage, ...]] = get_args(RetryStage)


class Failed(NamedTuple):
    """Something that a stage has no result for."""

    what: str  # a file's origin, or a shard
    reason: str
    detail: str


def failures_of(stage: RetryStage, workspace: Workspace) -> list[Failed]:
    """Return what failed in a stage's last finished run; [] if there was none."""
    if stage == "annotate":
        shards = _read(workspace.annotations / "failed.jsonl", Failure)
        return [Failed(item.key, item.reason, item.detail) for item in shards]
    folder = workspace.raw if stage == "ingest" else workspace.clips
    files = _read(folder / "rejected.jsonl", RejectedFile)
    return [Failed(item.origin, item.reason, item.detail) for item in files]


def prepare_retry(stage: RetryStage, workspace: Workspace) -> None:
    """Put a stage's results back into its live state, and forget its failures.

    The stage's next run then does only what failed. Nothing is lost if it does not come to that:
    the results stay where they are, and their files have a second name.

    Raises:
        MissingInputError: The results there are not those of the present recipe, inputs and code.
    """
    fingerprint = stage_fingerprint(workspace, stage)
    if _last_fingerprint(stage, workspace) != fingerprint:
        raise MissingInputError(
            f"what {stage} left is not of the present recipe, inputs and code: run `svd {stage}`"
        )
    _PREPARE[stage](workspace, workspace.runs / fingerprint)


def forget_failures(stage: RetryStage, workspace: Workspace) -> int:
    """Empty a stage's poison lists; return how many units stood there."""
    state = workspace.runs / stage_fingerprint(workspace, stage)
    return sum(forget_poison(path) for path in state.glob("poison*.jsonl"))


def _last_fingerprint(stage: str, workspace: Workspace) -> str | None:
    path = workspace.stage_run(stage)
    if not path.is_file():
        return None
    return StageRun.parse(path.read_text(encoding="utf-8"), origin=str(path)).fingerprint


def _prepare_ingest(workspace: Workspace, state: Path) -> None:
    done = state / "ingest" / "done"
    done.mkdir(parents=True, exist_ok=True)
    for path in (state / EXAMINED).glob("*.json"):
        outcome = Examined.parse(path.read_text(encoding="utf-8"), origin=str(path))
        if outcome.video is not None:
            shutil.copyfile(path, done / path.name)
    _link_tree(workspace.raw / VIDEOS, state / "ingest" / "raw" / VIDEOS)


def _prepare_clip(workspace: Workspace, state: Path) -> None:
    forget_poison(state / POISON)
    for name in (DONE, "clips", "bank"):
        _link_tree(workspace.clips / name, state / "out" / name)


def _prepare_annotate(_: Workspace, state: Path) -> None:
    for path in state.glob("poison*.jsonl"):  # the shards that are done lie in the live state
        forget_poison(path)


_PREPARE: Final[Mapping[RetryStage, Callable[[Workspace, Path], None]]] = {
    "ingest": _prepare_ingest,
    "clip": _prepare_clip,
    "annotate": _prepare_annotate,
}


def _link_tree(source: Path, target: Path) -> None:
    """Give every file below a folder a second name; copy where the file system has no links."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    if Path(target).exists():  # a retry that was killed had come this far
        return
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        with new_file(Path(target)) as partial:
            shutil.copyfile(source, partial)


def _read(path: Path, kind: type[R]) -> list[R]:
    return list(read_records(path, kind)) if path.is_file() else []
