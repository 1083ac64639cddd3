"""The clips that our own curation held out, read from the files of stages clip and filter."""

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Final

from svd.evaluation.datasets.base import Dataset, Item, Listing, existing, made_listing
from svd.evaluation.datasets.synthetic import write_pan
from svd.runtime.fingerprint import file_sha256
from svd.runtime.workspace import Workspace
from svd.types.annotation import Verdict
from svd.types.base import read_records, write_records
from svd.types.video import Clip, ClipSpan


def _list_items(data: Path) -> Listing:
    workspace = Workspace(data)
    clips = {
        clip.clip_id: clip for clip in read_records(existing(workspace.clips / "index.jsonl"), Clip)
    }
    verdicts = read_records(existing(workspace.filtered / "verdicts.jsonl"), Verdict)
    held_out = sorted(one.clip_id for one in verdicts if one.kept and one.split == "heldout")
    items = [
        Item(clip_id, f"data/clips/{clips[clip_id].uri}", group=clips[clip_id].span.video_id[:12])
        for clip_id in held_out
        if clip_id in clips
    ]
    return made_listing(data, items, None)


def _write_small(folder: Path, num: int) -> None:
    workspace = Workspace(folder)
    (workspace.clips / "clips").mkdir(parents=True)
    clips, verdicts = [], []
    for index in range(num):
        clip_id = hashlib.sha256(f"clip {index}".encode()).hexdigest()[:16]
        path = workspace.clips / "clips" / f"{clip_id}.mp4"
        write_pan(path, 900 + index, num_frames=20, height=72, width=128)
        clips.append(_clip(clip_id, path))
        verdict = Verdict(clip_id=clip_id, group_id=clip_id, kept=True, reasons=(), split="heldout")
        verdicts.append(verdict)
    write_records(workspace.clips / "index.jsonl", clips)
    write_records(workspace.filtered / "verdicts.jsonl", verdicts)


def _clip(clip_id: str, path: Path) -> Clip:
    """Return the record of a synthetic clip of 20 frames."""
    span = ClipSpan(
        video_id=hashlib.sha256(b"synthetic").hexdigest(),
        start_frame=0,
        stop_frame=20,
        start_pts=0,
        stop_pts=20,
        time_base=Fraction(1, 25),
        method="reencode",
    )
    return Clip(
        clip_id=clip_id,
        span=span,
        uri=f"clips/{clip_id}.mp4",
        sha256=file_sha256(path),
        width=128,
        height=72,
        fps=Fraction(25),
        num_frames=20,
        duration_s=0.8,
    )


CURATED: Final = Dataset(
    name="our own held-out clips",
    layout="""\
  data/clips/index.jsonl, data/clips/clips/      written by `svd clip`
  data/filtered/verdicts.jsonl                   written by `svd filter`""",
    how_to_get="Run the pipeline up to `svd filter`, and give the checkout's root.",
    list_items=_list_items,
    write_small=_write_small,
)
