"""The clips that filter kept, joined from the records of the stages before."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from svd.errors import MissingInputError
from svd.runtime.workspace import Workspace
from svd.types.annotation import SplitName, Tier, Verdict
from svd.types.base import R, read_records
from svd.types.video import Clip


@dataclass(frozen=True, slots=True)
class KeptClip:
    """A clip that filter kept, which split it is in, and whether it passed the second bar."""

    clip: Clip
    split: SplitName
    tier: Tier


def load_kept_clips(workspace: Workspace) -> tuple[KeptClip, ...]:
    """Return the clips that filter kept, by clip_id.

    Raises:
        MissingInputError: A stage has not run, or does not know a kept clip.
    """
    index = read_stage_records(workspace.clips / "index.jsonl", Clip, stage="clip")
    clips = {clip.clip_id: clip for clip in index}
    verdicts = read_stage_records(workspace.filtered / "verdicts.jsonl", Verdict, stage="filter")
    kept = []
    for verdict in sorted(verdicts, key=lambda verdict: verdict.clip_id):
        if not verdict.kept or verdict.split is None:
            continue
        if verdict.clip_id not in clips:
            raise MissingInputError(
                f"clip {verdict.clip_id} is kept but not in data/clips: run `svd clip`, "
                "`svd annotate` and `svd filter` again"
            )
        kept.append(KeptClip(clips[verdict.clip_id], verdict.split, verdict.tier or "base"))
    return tuple(kept)


def read_stage_records(path: Path, kind: type[R], *, stage: str) -> Iterator[R]:
    """Read the records that a stage leaves.

    Raises:
        MissingInputError: It has not run.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `svd {stage}` first")
    return read_records(path, kind)
