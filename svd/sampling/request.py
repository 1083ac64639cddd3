"""What a person asked to be sampled: pictures or prompts, seeds, and the settings in force."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import yaml
from jaxtyping import UInt8
from numpy import ndarray

from svd.config.load import parse_section
from svd.config.sampling import SamplingConfig
from svd.errors import CheckpointError, ConfigError, MediaError, MissingInputError
from svd.media.footage import Footage, read_footage
from svd.media.picture import PICTURE_SUFFIXES, fit_picture, read_picture_over_white, widen_picture
from svd.types.artifact import ModelRecord

logger = logging.getLogger(__name__)

Tree = dict[str, object]
_SLUG_LENGTH = 48  # characters of a prompt in a file name
_SIZES = ("num_frames", "height", "width")  # extras of model.json that set defaults

# Where an objective's own defaults differ from the release's image-to-video. Interpolation: known
# ends need no guidance, and no training noise comes near 700 (p_mean + 3 p_std is ln 100).
_DEFAULTS: Mapping[str, Tree] = {
    "interpolation": {
        "guidance": {"kind": "constant", "max_scale": 1.0},
        "schedule": {"sigma_max": 80.0},
    },
    # Least at the given view and most on the far side, as SV3D does (Voleti 2024, section 4.1).
    "orbit": {"guidance": {"kind": "triangular", "max_scale": 2.5}},
}


class Subject(NamedTuple):
    """What one or more videos are made from."""

    name: str  # start of the file names
    prompt: str | None = None
    picture: UInt8[ndarray, "H W 3"] | None = None  # of the size that is sampled
    footage: Footage | None = None  # likewise; new frames are put between its own
    origin: str | None = None  # the picture's or the video's file


class Draw(NamedTuple):
    """One video to sample."""

    subject: Subject
    seed: int

    @property
    def name(self) -> str:
        """Stem of the video's files."""
        return f"{self.subject.name}-seed{self.seed}"


def resolve_settings(
    record: ModelRecord, file: Path | None, flags: Mapping[str, object]
) -> SamplingConfig:
    """Return the settings in force; see `merge_settings`.

    Args:
        record: model.json.
        file: YAML of a sampling section, or None.
        flags: Dotted keys of what was given on the command line.

    Raises:
        MissingInputError: The file is not there.
        ConfigError: A key is unknown, of the wrong type, out of bounds or in conflict.
    """
    merged = merge_settings(record, {} if file is None else _read_tree(file), flags)
    return parse_section(json.dumps(merged), SamplingConfig, origin="sampling settings")


def _read_tree(file: Path) -> Tree:
    if not file.is_file():
        raise MissingInputError(f"{file}: no such file")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as err:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} must hold the keys of a sampling section")
    return tree


def merge_settings(
    record: ModelRecord, file: Mapping[str, object], flags: Mapping[str, object]
) -> Tree:
    """Return the tree of a SamplingConfig: defaults, what the model was trained on, file, flags.

    Args:
        record: model.json; its extras may name objective, num_frames, height, width, fps ("8/1").
        file: A tree that a person keeps, e.g. read from YAML.
        flags: Dotted keys of what was given on the command line, e.g. "schedule.num_steps".
    """
    tree: Tree = SamplingConfig().model_dump(mode="json")
    _update(tree, _DEFAULTS.get(str(record.extras.get("objective")), {}))
    _update(tree, _trained_on(record))
    _update(tree, file)
    for key, value in flags.items():
        _update(tree, _nested(key.split("."), value))
    given = {**file, **flags}
    if "decode_chunk_size" in given and "decode_overlap" not in given:
        size = tree["decode_chunk_size"]
        overlap = SamplingConfig().decode_overlap
        tree["decode_overlap"] = min(overlap, size // 2) if isinstance(size, int) else overlap
    return tree


def _trained_on(record: ModelRecord) -> Tree:
    found: Tree = {key: record.extras[key] for key in _SIZES if key in record.extras}
    fps = record.extras.get("fps")
    if fps is not None:
        try:
            found["fps"] = max(1, round(Fraction(str(fps))))
        except (ValueError, ZeroDivisionError) as err:
            raise CheckpointError(f"fps={fps!r} of model {record.stage} is not a rate") from err
    return found


def _nested(path: Sequence[str], value: object) -> Tree:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _update(tree: Tree, changes: Mapping[str, object]) -> None:
    for key, value in changes.items():
        branch = tree.get(key)
        if isinstance(branch, dict) and isinstance(value, Mapping):
            _update(branch, value)
        else:
            tree[key] = value


def read_subjects(
    paths: Sequence[Path], *, height: int, width: int, whole: bool = False
) -> tuple[Subject, ...]:
    """Read the pictures to start from; a folder stands for the pictures in it, by name.

    What is transparent is laid over white. Pictures are cropped to the size's aspect, or, where
    they are to be whole, widened with white.

    A bad file in a folder is left out with a warning; one that was named itself is an error.

    Raises:
        MediaError: A named file is no picture.
        MissingInputError: A named file is not there.
        ConfigError: Nothing usable is left.
    """
    files = [(file, path.is_dir()) for path in paths for file in _expand(path)]
    stems = [file.stem for file, _ in files]
    subjects = []
    for file, is_member in files:
        try:
            picture = read_picture_over_white(file)
        except MediaError as err:
            if not is_member:
                raise
            logger.warning("left out a file", extra={"path": str(file), "reason": err.reason})
            continue
        name = file.stem if stems.count(file.stem) == 1 else f"{file.stem}-{file.suffix[1:]}"
        if whole:
            picture = widen_picture(picture, height=height, width=width)
        fitted = fit_picture(picture, height=height, width=width)
        subjects.append(Subject(name=slug(name), picture=fitted, origin=str(file)))
    if not subjects:
        raise ConfigError(f"no picture to start from in {', '.join(map(str, paths))}")
    return _distinct(subjects)


def _expand(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    members = sorted(member for member in path.iterdir() if member.is_file())
    yield from (member for member in members if member.suffix.lower() in PICTURE_SUFFIXES)


def video_subjects(paths: Sequence[Path], *, height: int, width: int) -> tuple[Subject, ...]:
    """Read the videos whose frames are known.

    Raises:
        MediaError: One cannot be read, has fewer than two frames, or frames of different sizes.
        MissingInputError: One is not there.
    """
    return _distinct(
        [
            Subject(
                name=slug(path.stem),
                footage=read_footage(path, height=height, width=width),
                origin=str(path),
            )
            for path in paths
        ]
    )


def prompt_subjects(prompts: Sequence[str]) -> tuple[Subject, ...]:
    """Return one subject per prompt, with names that differ."""
    return _distinct([Subject(name=slug(prompt), prompt=prompt) for prompt in prompts])


def _distinct(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Number the names that occur twice."""
    seen: dict[str, int] = {}
    result = []
    for subject in subjects:
        seen[subject.name] = count = seen.get(subject.name, 0) + 1
        name = subject.name if count == 1 else f"{subject.name}-{count}"
        result.append(subject._replace(name=name))
    return tuple(result)


def slug(text: str) -> str:
    """Return the text as a file name: letters, digits and single hyphens."""
    words = re.sub(r"[^\w]+", "-", text, flags=re.ASCII).strip("-_").lower()
    return words[:_SLUG_LENGTH].rstrip("-") or "untitled"


def plan_draws(
    subjects: Sequence[Subject], *, first_seed: int, num_samples: int
) -> tuple[Draw, ...]:
    """Return every video to sample: each subject with seeds first_seed, first_seed + 1, ..."""
    seeds = range(first_seed, first_seed + num_samples)
    return tuple(Draw(subject, seed) for subject in subjects for seed in seeds)
