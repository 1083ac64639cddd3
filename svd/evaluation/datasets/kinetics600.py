"""Kinetics-600: ten-second clips from YouTube, of which fewer are left every year."""

import csv
from pathlib import Path
from typing import Final

from svd.evaluation.datasets.base import (
    Dataset,
    Item,
    Listing,
    clip_id_of,
    made_listing,
    videos_below,
)
from svd.evaluation.datasets.synthetic import write_pan

_MIN_NUM = 25_000  # the validation list has about 30,000; a few clips are not the split
_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")


def _list_items(data: Path) -> Listing:
    videos = videos_below(data / "val")
    items = [
        Item(
            clip_id=clip_id_of(path.stem),
            path=path.relative_to(data).as_posix(),
            prompt=path.parent.name.replace("_", " "),
            group=path.parent.name,
        )
        for path in videos
    ]
    return made_listing(data, items, _split(data, len(items)))


def _split(data: Path, num: int) -> str | None:
    """Return the split's name if every clip that the annotations list is there."""
    annotations = data / "annotations" / "val.csv"
    if not annotations.is_file():
        return None
    with annotations.open(encoding="utf-8", newline="") as file:
        listed = sum(1 for _ in csv.DictReader(file))
    return "kinetics600/val" if listed == num >= _MIN_NUM else None


def _write_small(folder: Path, num: int) -> None:
    rows = []
    for index in range(num):
        label = ("juggling fire", "surfing water")[index % 2]
        youtube_id, start = f"synthetic{index:02d}", 10 * index
        name = f"{youtube_id}_{start:06d}_{start + 10:06d}.mp4"
        path = folder / "val" / label.replace(" ", "_") / name
        write_pan(path, 100 + index, num_frames=24, height=72, width=96)
        rows.append((label, youtube_id, start, start + 10, "val"))
    (folder / "annotations").mkdir(exist_ok=True)
    with (folder / "annotations" / "val.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(rows)


KINETICS600: Final = Dataset(
    name="Kinetics-600",
    layout="""\
  val/<class or id>/<youtube id>_<start:06>_<end:06>.mp4
  annotations/val.csv                            label,youtube_id,time_start,time_end,split""",
    how_to_get="Videos decay: what is missing is left out, and the data hash says what was there.",
    list_items=_list_items,
    write_small=_write_small,
)
