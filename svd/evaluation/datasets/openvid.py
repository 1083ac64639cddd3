"""OpenVid-1M: about a million captioned clips; no official validation split exists."""

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

_TABLE = "data/train/OpenVid-1M.csv"


def _list_items(data: Path) -> Listing:
    captions = _captions(data / _TABLE)
    items = [
        Item(
            clip_id=clip_id_of(path.stem),
            path=path.relative_to(data).as_posix(),
            prompt=captions.get(path.name, ""),
        )
        for path in videos_below(data / "video")
    ]
    return made_listing(data, items, None)


def _captions(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return {row.get("video") or "": row.get("caption") or "" for row in rows}


def _write_small(folder: Path, num: int) -> None:
    (folder / "data" / "train").mkdir(parents=True, exist_ok=True)
    with (folder / _TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video", "caption", "frame", "fps", "seconds"))
        for index in range(num):
            name = f"clip_{index:03d}_0_to_24.mp4"
            write_pan(folder / "video" / name, 300 + index, num_frames=24, height=64, width=112)
            writer.writerow((name, f"A painting, number {index}.", 24, 25, 0.96))


OPENVID: Final = Dataset(
    name="OpenVid-1M",
    layout="""\
  video/*.mp4                                    unpacked from OpenVid_part*.zip
  data/train/OpenVid-1M.csv                      video,caption,... (optional)""",
    how_to_get="Data set nkp37/OpenVid-1M of the Hugging Face hub, CC-BY-4.0.",
    list_items=_list_items,
    write_small=_write_small,
)
