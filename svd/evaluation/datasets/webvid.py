"""WebVid-10M validation: stock footage with a watermark, withdrawn by its owner."""

import csv
from pathlib import Path
from typing import Final

from svd.errors import IntegrityError
from svd.evaluation.datasets.base import (
    Dataset,
    Item,
    Listing,
    clip_id_of,
    existing,
    made_listing,
)
from svd.evaluation.datasets.synthetic import write_pan

_COLUMNS = ("videoid", "contentUrl", "duration", "page_dir", "name")
_MIN_NUM = 4_500  # the validation table has about 5,000 rows; a few clips are not the split
_TABLE = "results_10M_val.csv"


def _list_items(data: Path) -> Listing:
    table = existing(data / _TABLE)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"videoid", "page_dir"} <= set(rows[0]):
        raise IntegrityError(f"{table}: columns {', '.join(rows[0])}; expected {_COLUMNS}")
    items = [
        Item(clip_id_of(row["videoid"]), path, prompt=row.get("name", ""))
        for row in rows
        if (data / (path := f"videos/{row['page_dir']}/{row['videoid']}.mp4")).is_file()
    ]
    complete = len(items) == len(rows) >= _MIN_NUM
    return made_listing(data, items, "webvid10m/val" if complete else None)


def _write_small(folder: Path, num: int) -> None:
    rows = []
    for index in range(num):
        page = f"{index:06d}_{index:06d}"
        path = folder / "videos" / page / f"{1000 + index}.mp4"
        write_pan(path, 200 + index, num_frames=40, height=84, width=150)
        rows.append((1000 + index, "", "PT00H00M01S", page, f"painting number {index}"))
    with (folder / _TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(rows)


WEBVID: Final = Dataset(
    name="WebVid-10M validation",
    layout="""\
  results_10M_val.csv                            videoid,contentUrl,duration,page_dir,name
  videos/<page_dir>/<videoid>.mp4""",
    how_to_get="Withdrawn by its owner: only who holds a copy can run this.",
    list_items=_list_items,
    write_small=_write_small,
)
