"""Physics-IQ: 66 scenes, three views, two takes; three seconds to condition on, five to score."""

from pathlib import Path
from typing import Final

from svd.errors import MissingInputError
from svd.evaluation.datasets.base import (
    Dataset,
    Item,
    Listing,
    clip_id_of,
    made_listing,
    videos_below,
)
from svd.evaluation.datasets.synthetic import pan, write_picture
from svd.evaluation.tables.physics_iq import VIEWS
from svd.media.encode import write_video

NUM_VIEWS_SCORED = 198  # 66 scenarios x 3 views
SOURCE_FPS = 30
# The official code reads `testing`, its README and download write `testing-videos`.
_TESTING = ("split-videos/testing-videos", "split-videos/testing")


def _list_items(data: Path) -> Listing:
    folder = _testing_folder(data)
    takes: dict[tuple[str, str], dict[str, Path]] = {}
    for path in videos_below(folder):
        parts = path.stem.split("_", 5)
        if len(parts) == 6 and parts[4] in {"take-1", "take-2"}:
            takes.setdefault((parts[5], parts[3]), {})[parts[4]] = path
    items = [
        _item(data, scenario, view, pair)
        for (scenario, view), pair in sorted(takes.items(), key=lambda entry: _number(entry[1]))
        if {"take-1", "take-2"} <= set(pair) and view in VIEWS
    ]
    complete = len(items) == NUM_VIEWS_SCORED
    return made_listing(data, items, "physics-iq/2025-02-19" if complete else None)


def _testing_folder(data: Path) -> Path:
    for name in _TESTING:
        folder = data / name / f"{SOURCE_FPS}FPS"
        if folder.is_dir():
            return folder
    raise MissingInputError(f"{data / _TESTING[0] / f'{SOURCE_FPS}FPS'} is not there")


def _number(takes: dict[str, Path]) -> str:
    return min(path.name for path in takes.values())


def _item(data: Path, scenario: str, view: str, takes: dict[str, Path]) -> Item:
    number = takes["take-1"].name.split("_", 1)[0]
    name = f"{number}_{view}_{scenario}"  # as the official program names a model's video
    switch = data / "switch-frames" / f"{number}_switch-frames_anyFPS_{view}_{scenario}.jpg"
    found = switch if switch.is_file() else _switch_frame(data, number)
    return Item(
        clip_id=clip_id_of(name),
        path=takes["take-1"].relative_to(data).as_posix(),
        group=scenario,
        facts=(
            ("view", view),
            ("take_2", takes["take-2"].relative_to(data).as_posix()),
            ("switch_frame", found.relative_to(data).as_posix() if found else ""),
        ),
    )


def _switch_frame(data: Path, number: str) -> Path | None:
    """Return the switch frame of a take by its number, whatever the rest of its name."""
    return next(iter(sorted((data / "switch-frames").glob(f"{number}_*.jpg"))), None)


def _write_small(folder: Path, num: int) -> None:
    """Write `num` scenarios of three views."""
    for index in range(num):
        scenario = f"trimmed-ball-and-block-{index}"
        for order, view in enumerate(VIEWS):
            key = 500 + 3 * index + order
            for take in (1, 2):
                number = 1 + 3 * index + order + (0 if take == 1 else 3 * num)
                speed = 0.02 + 0.004 * take
                frames = pan(key, num_frames=5 * SOURCE_FPS, height=96, width=128, speed=speed)
                kind = f"testing-videos_{SOURCE_FPS}FPS_{view}_take-{take}"
                name = f"{number:04d}_{kind}_{scenario}.mp4"
                path = folder / _TESTING[0] / f"{SOURCE_FPS}FPS" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_video(path, frames, SOURCE_FPS)
                if take == 1:
                    still = f"{number:04d}_switch-frames_anyFPS_{view}_{scenario}.jpg"
                    write_picture(folder / "switch-frames" / still, frames[0])


PHYSICS_IQ: Final = Dataset(
    name="Physics-IQ",
    layout="""\
  split-videos/testing-videos/30FPS/
    <NNNN>_testing-videos_30FPS_<view>_take-<1|2>_<scenario>.mp4    396 videos
  switch-frames/<NNNN>_*.jpg                     198 pictures to condition on""",
    how_to_get="gs://physics-iq-benchmark, CC-BY-4.0 (google-deepmind/physics-IQ-benchmark).",
    list_items=_list_items,
    write_small=_write_small,
)
