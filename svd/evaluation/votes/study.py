"""How a study is made: folders of samples of the same items become blind pairs of equal form."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from svd.atomic import write_text
from svd.errors import ConfigError, MissingInputError
from svd.evaluation.votes.folder import STUDY
from svd.evaluation.votes.matching import Clip, match_form, read_clip, ruin
from svd.media.encode import write_video
from svd.runtime.fingerprint import file_sha256
from svd.runtime.progress import track
from svd.types.vote import Study, StudyItem, StudyPair

logger = logging.getLogger(__name__)

RUINED = "ruined"  # stands where a check's second model would
# What a call that was killed leaves; the next one goes over it, for files are named by content.
_BEFORE_STUDY = {"videos", "pictures", f"{STUDY}.partial"}
_BESIDE = ".truth"  # ends the names of videos that lie beside samples and are none


class Entry(NamedTuple):
    """One model's samples."""

    name: str
    folder: Path


class StudyOptions(NamedTuple):
    """How a study is asked; see `svd.types.vote.Study` for the meaning of what they share."""

    title: str
    seed: int = 0
    votes_per_pair: int = 3
    check_every: int = 10
    ties: bool = False
    min_watch_s: float = 1.0
    num_items: int | None = None  # drawn at random from those that all folders have; None is all


def create_study(
    entries: Sequence[Entry],
    folder: Path,
    options: StudyOptions,
    *,
    prompts: Mapping[str, str] | None = None,
) -> Study:
    """Make every pair of models over every common item; write the study; return it.

    All videos of an item get one size, length and rate, and are named by their content, so that
    nothing about a file tells whose it is. Equal input gives an equal study.

    Args:
        entries: Two or more; each folder holds `<item>.mp4`, itself or below samples/ or videos/.
        folder: Of the study; made, empty, or left unfinished by a call that was killed.
        options: How it is asked.
        prompts: By item; None takes them from `svd sample`'s records where there are any.

    Raises:
        ConfigError: Fewer than two models, no common item, or the folder holds something.
        MediaError: A video cannot be read.
        MissingInputError: A folder is not there.
    """
    if len({entry.name for entry in entries}) < max(2, len(entries)):
        raise ConfigError("a study compares two or more models under different names")
    if folder.exists() and not {path.name for path in folder.iterdir()} <= _BEFORE_STUDY:
        raise ConfigError(f"{folder} is not empty: a study with votes is never written over")
    found = {entry.name: _videos(entry) for entry in entries}
    generator = np.random.default_rng(options.seed)
    item_ids = _common_items(found, options.num_items, generator)
    for name in ("videos", "pictures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    items: list[StudyItem] = []
    files: dict[tuple[str, str], str] = {}  # of an item and a model: the video's sha256
    described = track(item_ids, total=len(item_ids), description="matching videos", unit="items")
    for item_id in described:
        clips = {name: read_clip(videos[item_id]) for name, videos in found.items()}
        files |= _write_videos(item_id, clips, folder)
        items.append(
            _item(item_id, [videos[item_id] for videos in found.values()], prompts, folder)
        )
    study = Study(
        title=options.title,
        models=tuple(found),
        items=tuple(items),
        pairs=_pairs(item_ids, tuple(found), files, options, folder, generator),
        seed=options.seed,
        votes_per_pair=options.votes_per_pair,
        check_every=options.check_every,
        ties=options.ties,
        min_watch_s=options.min_watch_s,
    )
    write_text(folder / STUDY, study.canonical_json() + "\n")
    return study


def read_prompts(path: Path) -> dict[str, str]:
    """Read prompts by item: a JSON object, or lines of item, tab, prompt.

    Raises:
        ConfigError: It is neither.
        MissingInputError: No such file.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            tree = json.loads(text)
        except ValueError as err:
            raise ConfigError(f"{path}: not JSON: {err}") from err
        if isinstance(tree, dict) and all(isinstance(value, str) for value in tree.values()):
            return dict(tree)
        raise ConfigError(f"{path}: must be an object of item and prompt")
    rows = [line.partition("\t") for line in text.splitlines() if line.strip()]
    for item_id, tab, _ in rows:
        if not tab:
            raise ConfigError(f"{path}: {item_id[:60]!r}: a line is item, tab, prompt")
    return {item_id: prompt for item_id, _, prompt in rows}


def _videos(entry: Entry) -> dict[str, Path]:
    places = [entry.folder / name for name in ("samples", "videos")]
    folder = next((place for place in places if place.is_dir()), entry.folder)
    if not folder.is_dir():
        raise MissingInputError(f"{entry.folder}: no such folder")
    return {
        path.stem: path for path in sorted(folder.glob("*.mp4")) if not path.stem.endswith(_BESIDE)
    }


def _common_items(
    found: Mapping[str, Mapping[str, Path]], num_items: int | None, generator: np.random.Generator
) -> tuple[str, ...]:
    named = [set(videos) for videos in found.values()]
    common = sorted(set.intersection(*named))
    if not common:
        counts = ", ".join(f"{name} {len(videos)}" for name, videos in found.items())
        raise ConfigError(f"no item is in all folders (videos: {counts}); names must be the same")
    left = len(set.union(*named)) - len(common)
    if left:
        logger.warning("items that not all models have are left out", extra={"num": left})
    if num_items is None or num_items >= len(common):
        return tuple(common)
    return tuple(sorted(generator.permutation(np.array(common))[:num_items].tolist()))


def _write_videos(
    item_id: str, clips: Mapping[str, Clip], folder: Path
) -> dict[tuple[str, str], str]:
    matched, fps = match_form(list(clips.values()))
    return {
        (item_id, name): _keep_video(frames, fps, folder)
        for name, frames in zip(clips, matched, strict=True)
    }


def _keep_video(frames: UInt8[ndarray, "t H W 3"], fps: Fraction, folder: Path) -> str:
    partial = folder / "videos" / "new.mp4"
    write_video(partial, frames, fps, crf=12)
    sha256 = file_sha256(partial)
    partial.replace(folder / "videos" / f"{sha256}.mp4")
    return sha256


def _item(
    item_id: str, videos: Sequence[Path], prompts: Mapping[str, str] | None, folder: Path
) -> StudyItem:
    """Describe an item from what lies beside its samples."""
    prompt = prompts.get(item_id, "") if prompts is not None else _recorded_prompt(videos)
    pictures = [video.with_name(f"{item_id}.cond.png") for video in videos]
    picture = next((path for path in pictures if path.is_file()), None)
    sha256 = None
    if picture is not None:
        sha256 = file_sha256(picture)
        shutil.copyfile(picture, folder / "pictures" / f"{sha256}.png")
    return StudyItem(item_id=item_id, prompt=prompt, picture_sha256=sha256)


def _recorded_prompt(videos: Sequence[Path]) -> str:
    """Return the prompt that `svd sample` wrote beside a sample, or ""."""
    for video in videos:
        path = video.with_suffix(".json")
        if path.is_file():
            tree = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(tree, dict) and isinstance(tree.get("prompt"), str):
                return str(tree["prompt"])
    return ""


def _pairs(
    item_ids: Sequence[str],
    models: Sequence[str],
    files: Mapping[tuple[str, str], str],
    options: StudyOptions,
    folder: Path,
    generator: np.random.Generator,
) -> tuple[StudyPair, ...]:
    """Return all pairs, and checks enough for a rater who sees every pair."""
    pairs = [
        StudyPair(
            pair_id=f"pair-{index:06d}",
            item_id=item_id,
            first_model=first,
            second_model=second,
            first_sha256=files[item_id, first],
            second_sha256=files[item_id, second],
        )
        for index, (item_id, (first, second)) in enumerate(
            (item_id, pair) for item_id in item_ids for pair in combinations(models, 2)
        )
    ]
    num_checks = -(-len(pairs) // (options.check_every - 1))
    draws = generator.integers(len(pairs), size=num_checks)
    checks = [_check(index, pairs[draw], folder) for index, draw in enumerate(draws)]
    return (*pairs, *checks)


def _check(index: int, pair: StudyPair, folder: Path) -> StudyPair:
    sound = read_clip(folder / "videos" / f"{pair.first_sha256}.mp4")
    spoiled = ruin(sound.frames)
    name = hashlib.sha256(f"check {index} {pair.pair_id}".encode()).hexdigest()[:12]
    return StudyPair(
        pair_id=f"check-{name}",
        item_id=pair.item_id,
        first_model=pair.first_model,
        second_model=RUINED,
        first_sha256=pair.first_sha256,
        second_sha256=_keep_video(spoiled, sound.fps, folder),
        is_check=True,
    )
