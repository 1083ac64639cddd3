"""Orbits around objects: rendered Google Scanned Objects, and MVImgNet's filmed ones."""

import json
from pathlib import Path
from typing import Final

import numpy as np

from svd.errors import IntegrityError
from svd.evaluation.datasets.base import Dataset, Item, Listing, clip_id_of, existing, made_listing
from svd.evaluation.datasets.synthetic import pan, write_picture
from svd.media.picture import PICTURE_SUFFIXES

NUM_VIEWS = 21  # of an orbit; Blattmann et al. 2023, section 4.5


def pictures_of(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


def elevation_of(folder: Path) -> float | None:
    """Return the degrees that an orbit's camera stands above its object; None if not said.

    Raises:
        IntegrityError: meta.json is there and says it wrongly.
    """
    path = folder / "meta.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["elevation_deg"]
    except (ValueError, KeyError, TypeError) as err:
        raise IntegrityError(f"{path} names no elevation_deg") from err
    if found is not None and not (isinstance(found, int | float) and -90 <= found <= 90):
        raise IntegrityError(f"{path}: elevation_deg={found!r} is no angle from -90 to 90")
    return None if found is None else float(found)


def _list_gso(data: Path) -> Listing:
    listed = existing(data / "objects.txt").read_text(encoding="utf-8").split("\n")
    names = [line.strip() for line in listed if line.strip()]
    items = [
        Item(clip_id_of(name), f"gso/{name}")
        for name in names
        if (data / "gso" / name).is_dir() and len(pictures_of(data / "gso" / name)) >= NUM_VIEWS
    ]
    return made_listing(data, items, None)  # the paper's list of 50 objects is not published


def _list_mvimgnet(data: Path) -> Listing:
    folders = sorted(path for path in data.glob("*/*/images") if path.is_dir())
    items = [
        Item(
            clip_id_of(f"{path.parent.parent.name}-{path.parent.name}"),
            path.relative_to(data).as_posix(),
            group=path.parent.parent.name,
        )
        for path in folders
        if len(pictures_of(path)) >= NUM_VIEWS
    ]
    return made_listing(data, items, None)


def _write_small_gso(folder: Path, num: int) -> None:
    names = [f"Painted_Mug_{index}" for index in range(num)]
    for index, name in enumerate(names):
        views = pan(700 + index, num_frames=NUM_VIEWS, height=64, width=64, speed=0.3)
        alpha = np.zeros((64, 64, 1), np.uint8)
        alpha[8:56, 8:56] = 255
        for view, picture in enumerate(views):
            path = folder / "gso" / name / f"{view:03d}.png"
            write_picture(path, np.concatenate([picture, alpha], axis=2))
        meta = {
            "elevation_deg": 10.0,
            "azimuths_deg": [360 * view / NUM_VIEWS for view in range(NUM_VIEWS)],
            "renderer": "synthetic",
            "hdri": "none",
        }
        (folder / "gso" / name / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    (folder / "objects.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def _write_small_mvimgnet(folder: Path, num: int) -> None:
    for index in range(num):
        views = pan(800 + index, num_frames=NUM_VIEWS + 3, height=80, width=60, speed=0.2)
        images = folder / f"{index % 2}" / f"0{index}000abc" / "images"
        for view, picture in enumerate(views, start=1):
            write_picture(images / f"{view:03d}.jpg", picture)


GSO: Final = Dataset(
    name="Google Scanned Objects, rendered",
    layout="""\
  objects.txt                                    names of the objects, one a line
  gso/<object>/000.png .. 020.png                21 views of an orbit, RGBA or on white
  gso/<object>/meta.json                         elevation_deg, azimuths_deg, renderer, hdri""",
    how_to_get="Render the objects yourself; which 50 the paper used is not published.",
    list_items=_list_gso,
    write_small=_write_small_gso,
)
MVIMGNET: Final = Dataset(
    name="MVImgNet",
    layout="""\
  <class>/<object>/images/*.jpg                  at least 21 pictures along a camera path""",
    how_to_get="From GAP-LAB-CUHK-SZ/MVImgNet, after signing its agreement.",
    list_items=_list_mvimgnet,
    write_small=_write_small_mvimgnet,
)
