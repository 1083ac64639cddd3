"""VBench's prompts and VBench-I2V's pictures, as their repository's JSON files list them."""

import json
from pathlib import Path
from typing import Final

from svd.errors import IntegrityError
from svd.evaluation.datasets.base import Dataset, Item, Listing, clip_id_of, existing, made_listing
from svd.evaluation.datasets.synthetic import pan, write_picture
from svd.evaluation.metrics.vbench import VBENCH, VBENCH_I2V

NUM_PROMPTS = 946
VIDEOS_PER_PROMPT = 5
_PROMPTS, _PICTURES = "VBench_full_info.json", "vbench2_i2v_full_info.json"
_CROPS = "data/crop/16-9"  # SVD's aspect is nearest to this one


def _read(path: Path) -> list[dict[str, object]]:
    try:
        entries = json.loads(existing(path).read_text(encoding="utf-8"))
        if all(isinstance(one["prompt_en"], str) and one["dimension"] for one in entries):
            return list(entries)
    except (ValueError, KeyError, TypeError) as err:
        raise IntegrityError(f"{path}: not a VBench list of prompt_en and dimension") from err
    raise IntegrityError(f"{path}: not a VBench list of prompt_en and dimension")


def _dimensions(entry: dict[str, object]) -> str:
    dimensions = entry["dimension"]
    return ",".join(dimensions) if isinstance(dimensions, list) else str(dimensions)


def _videos(prompt: str, dimensions: str, path: str = "") -> list[Item]:
    return [
        Item(
            clip_id=clip_id_of(f"{prompt}-{index}"),
            path=path,
            prompt=prompt,
            facts=(("file", f"{prompt}-{index}".replace("/", "_")), ("dimensions", dimensions)),
        )
        for index in range(VIDEOS_PER_PROMPT)
    ]


def _list_prompts(data: Path) -> Listing:
    entries = _read(data / _PROMPTS)
    items = [item for one in entries for item in _videos(str(one["prompt_en"]), _dimensions(one))]
    return made_listing(data, items, "vbench/946" if len(entries) == NUM_PROMPTS else None)


def _list_pictures(data: Path) -> Listing:
    entries = [one for one in _read(data / _PICTURES) if "image_name" in one]
    items, num_found = [], 0
    for one in entries:
        path = f"{_CROPS}/{one['image_name']}"
        if (data / path).is_file():
            num_found += 1
            items += _videos(str(one["prompt_en"]), _dimensions(one), path)
    existing(data / _CROPS)
    complete = num_found == len(entries) == 246 + 109
    return made_listing(data, items, "vbench-i2v/16-9" if complete else None)


def _write_small_prompts(folder: Path, num: int) -> None:
    dimensions = list(VBENCH.quality)
    entries = [
        {"prompt_en": f"a still life, number {index}", "dimension": dimensions}
        for index in range(num)
    ]
    (folder / _PROMPTS).write_text(json.dumps(entries), encoding="utf-8")


def _write_small_pictures(folder: Path, num: int) -> None:
    entries = []
    for index in range(num):
        kind = "i2v_subject" if index % 2 == 0 else "i2v_background"
        name = f"a painting, number {index}"
        dimensions = [kind, *VBENCH_I2V.quality]
        entries.append({"prompt_en": name, "dimension": dimensions, "image_name": f"{name}.jpg"})
        picture = pan(600 + index, num_frames=1, height=72, width=128)[0]
        write_picture(folder / _CROPS / f"{name}.jpg", picture)
    (folder / _PICTURES).write_text(json.dumps(entries), encoding="utf-8")


VBENCH_PROMPTS: Final = Dataset(
    name="VBench",
    layout="""\
  VBench_full_info.json                          946 prompts with their dimensions""",
    how_to_get="vbench/VBench_full_info.json of Vchitect/VBench.",
    list_items=_list_prompts,
    write_small=_write_small_prompts,
)
VBENCH_PICTURES: Final = Dataset(
    name="VBench-I2V",
    layout="""\
  vbench2_i2v_full_info.json                     prompts, pictures and their dimensions
  data/crop/16-9/<image_name>                    355 pictures""",
    how_to_get="vbench2_beta_i2v of Vchitect/VBench; download_data.sh there fetches the pictures.",
    list_items=_list_pictures,
    write_small=_write_small_pictures,
)
