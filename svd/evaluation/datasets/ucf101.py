"""UCF-101: 13,320 clips of 101 actions."""

from collections import Counter
from pathlib import Path
from typing import Final

from svd.evaluation.datasets.base import Dataset, Item, Listing, made_listing, videos_below
from svd.evaluation.datasets.synthetic import write_pan

NUM_CLIPS, NUM_CLASSES = 13_320, 101


def _list_items(data: Path) -> Listing:
    folder = data / "UCF-101" if (data / "UCF-101").is_dir() else data
    videos = [path for path in videos_below(folder, [".avi"]) if path.name.startswith("v_")]
    items = [
        Item(
            clip_id=path.stem,
            path=path.relative_to(data).as_posix(),
            prompt=path.parent.name,  # the raw class name, as the paper prompts
            group=path.parent.name,
        )
        for path in videos
    ]
    num_classes = len(Counter(item.group for item in items))
    complete = len(items) == NUM_CLIPS and num_classes == NUM_CLASSES
    return made_listing(data, items, "ucf101/all" if complete else None)


def _write_small(folder: Path, num: int) -> None:
    classes = ("Archery", "Biking", "TableTennisShot")
    for index in range(num):
        name = classes[index % len(classes)]
        group, take = index // len(classes) // 4 + 1, index // len(classes) % 4 + 1
        path = folder / "UCF-101" / name / f"v_{name}_g{group:02d}_c{take:02d}.avi"
        write_pan(path, index, num_frames=20, height=60, width=80)
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    lines = [f"{index} {name}" for index, name in enumerate(classes, start=1)]
    (lists / "classInd.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


UCF101: Final = Dataset(
    name="UCF-101",
    layout="""\
  UCF-101/<Class>/v_<Class>_g<NN>_c<NN>.avi      13,320 videos in 101 folders
  ucfTrainTestlist/                              not read: the protocols use all clips""",
    how_to_get="From the University of Central Florida's Center for Research in Computer Vision.",
    list_items=_list_items,
    write_small=_write_small,
)
