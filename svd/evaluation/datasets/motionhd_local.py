"""MotionHD-local: a user's own HD clips in bins of equal count by how much moves.

The idea of IV-VAE's MotionHD, which was never published; so it never bears that name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from svd.errors import MediaError
from svd.evaluation.datasets.base import (
    Dataset,
    Item,
    Listing,
    clip_id_of,
    existing,
    made_listing,
    videos_below,
)
from svd.evaluation.datasets.synthetic import write_pan
from svd.evaluation.metrics.optical_flow import flow_magnitude
from svd.evaluation.reading import count_frames, read_window
from svd.types.base import Record, read_records, write_records

_MANIFEST = "manifest.jsonl"


class MotionClip(Record):
    """One line of manifest.jsonl."""

    path: str  # below the data folder
    start: int = Field(ge=0)  # first frame
    frames: int = Field(gt=0)
    motion_bin: int = Field(ge=0)  # 0 moves least


def bin_by_motion(values: Sequence[float], num_bins: int) -> list[int]:
    """Return the bin of each value, so that bins hold equal counts to within one."""
    ranks = np.argsort(np.argsort(np.asarray(values), kind="stable"))
    return [int(rank * num_bins // len(values)) for rank in ranks]


def write_manifest(data: Path, *, num_frames: int, num_bins: int) -> tuple[MotionClip, ...]:
    """Measure the clips of a folder and write manifest.jsonl; short and broken ones are left out.

    Args:
        data: Holds clips/*.mp4.
        num_frames: Taken of each clip, from its start.
        num_bins: Of the mean length of optical flow.
    """
    paths, values = [], []
    for path in videos_below(data / "clips"):
        try:
            if count_frames(path) < num_frames:
                continue
            frames = read_window(path, num_frames=num_frames)
        except MediaError:
            continue
        paths.append(path.relative_to(data).as_posix())
        values.append(flow_magnitude(frames))
    clips = tuple(
        MotionClip(path=path, start=0, frames=num_frames, motion_bin=motion_bin)
        for path, motion_bin in zip(paths, bin_by_motion(values, num_bins), strict=True)
    )
    write_records(data / _MANIFEST, clips)
    return clips


def _list_items(data: Path) -> Listing:
    clips = list(read_records(existing(data / _MANIFEST), MotionClip))
    items = [
        Item(
            clip_id=clip_id_of(f"{Path(clip.path).stem}-{clip.start}"),
            path=clip.path,
            group=f"motion bin {clip.motion_bin}",
            start_frame=clip.start,
        )
        for clip in clips
        if (data / clip.path).is_file()
    ]
    return made_listing(data, items, None)


def _write_small(folder: Path, num: int) -> None:
    for index in range(num):
        path = folder / "clips" / f"clip-{index:02d}.mp4"
        write_pan(path, 400 + index, num_frames=20, height=72, width=128)
    write_manifest(folder, num_frames=17, num_bins=min(3, num))


MOTIONHD_LOCAL: Final = Dataset(
    name="MotionHD-local",
    layout="""\
  clips/*.mp4                                    your own clips, 1080p or more
  manifest.jsonl                                 a line each: path, start, frames, motion_bin""",
    how_to_get="`svd protocol bins DIR` measures optical flow and writes the manifest.",
    list_items=_list_items,
    write_small=_write_small,
)
