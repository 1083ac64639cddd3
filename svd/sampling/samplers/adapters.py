"""Adapters at sampling: which files, how strong, in which frames."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.models.adapters.lora import add_adapter, set_strengths
from svd.models.adapters.lora_file import load_adapter
from svd.models.networks.unet import SpatioTemporalUNet
from svd.runtime.fingerprint import file_sha256
from svd.sampling.samplers.record import RECORD_FILE, read_model_record
from svd.types.base import Record

_USE = re.compile(r"(?P<name>.+?)(:(?P<scale>[-+.\w]+))?(@(?P<first>\d+)-(?P<last>\d*))?")
_WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """One adapter in one range of frames.

    Attributes:
        path: Its safetensors file.
        scale: How much it counts; 1 is as trained, 0 not at all.
        first_frame: Of the range; frames are counted over the whole video.
        last_frame: Likewise, included; None is the video's last.
    """

    path: Path
    scale: float = 1.0
    first_frame: int = 0
    last_frame: int | None = None

    @property
    def is_ranged(self) -> bool:
        """Whether it is confined to some frames."""
        return self.first_frame > 0 or self.last_frame is not None

    def scale_at(self, frame: int) -> float:
        """Return the scale in a frame."""
        is_within = self.first_frame <= frame and (
            self.last_frame is None or frame <= self.last_frame
        )
        return self.scale if is_within else 0.0


class AdapterRecord(Record):
    """What a sample's record says of an adapter that was used."""

    file: str
    sha256: str
    scale: float
    first_frame: int
    last_frame: int | None


def parse_use(text: str, *, models: Path) -> AdapterUse:
    """Read NAME[:SCALE][@FIRST-LAST], e.g. "zoom:0.8@0-6" or "my/adapter.safetensors:1.2".

    Args:
        text: NAME is a file, a folder of stage lora, or what such a stage was called.
        models: Folder of the models; lora@NAME is looked for in it.

    Raises:
        ConfigError: The text is not of this form, or the range is empty.
        IntegrityError: The file is not the one that model.json names.
        MissingInputError: There is no such adapter.
    """
    match = _USE.fullmatch(text)
    if match is None:
        raise _malformed(text)
    try:
        scale = float(match["scale"] or 1)
    except ValueError as err:
        raise _malformed(text) from err
    first, last = int(match["first"] or 0), int(match["last"]) if match["last"] else None
    if last is not None and last < first:
        raise ConfigError(f"--lora {text}: the range of frames ends before it begins")
    return AdapterUse(_find_file(match["name"], models), scale, first, last)


def _malformed(text: str) -> ConfigError:
    return ConfigError(
        f"--lora {text}: write it as NAME[:SCALE][@FIRST-LAST], e.g. zoom, zoom:0.8 or zoom:1@0-6"
    )


def _find_file(name: str, models: Path) -> Path:
    path, folder = Path(name), models / f"lora@{name}"
    if not folder.is_dir() and path.is_file():
        return path
    if not folder.is_dir() and path.is_dir():
        folder = path
    if not folder.is_dir():
        there = sorted(found.name.partition("@")[2] for found in models.glob("lora@*"))
        raise MissingInputError(
            f"there is no adapter {name}: it is no file, and {folder} is not there; trained here: "
            f"{', '.join(there) or 'none (svd lora NAME trains one)'}"
        )
    file, record = folder / _WEIGHTS_FILE, read_model_record(folder, kind="lora")
    if not file.is_file() or file_sha256(file) != record.weights_sha256:
        raise IntegrityError(f"{file} is not the adapter that its {RECORD_FILE} names")
    return file


def attach(unet: SpatioTemporalUNet, uses: Sequence[AdapterUse]) -> None:
    """Load every adapter into a UNet, each file once.

    Raises:
        CheckpointError: One is of another model, or no adapter.
    """
    for path in dict.fromkeys(use.path for use in uses):
        add_adapter(unet, _name(path, uses), load_adapter(path, unet), origin=str(path))


def set_frames(
    unet: SpatioTemporalUNet, uses: Sequence[AdapterUse], *, first_frame: int, num_frames: int
) -> None:
    """Set the strengths for a stretch of a video: the sum of an adapter's uses in each frame.

    Args:
        unet: That holds the adapters.
        uses: All of them.
        first_frame: Of the stretch, counted over the whole video.
        num_frames: Of the stretch.
    """
    for path in dict.fromkeys(use.path for use in uses):
        own = [use for use in uses if use.path == path]
        frames = range(first_frame, first_frame + num_frames)
        strengths = [sum(use.scale_at(frame) for use in own) for frame in frames]
        constant = len(set(strengths)) == 1
        set_strengths(unet, _name(path, uses), strengths[:1] if constant else strengths)


def adapter_records(uses: Sequence[AdapterUse]) -> tuple[AdapterRecord, ...]:
    """Return what a sample's record keeps."""
    return tuple(
        AdapterRecord(
            file=str(use.path),
            sha256=file_sha256(use.path),
            scale=use.scale,
            first_frame=use.first_frame,
            last_frame=use.last_frame,
        )
        for use in uses
    )


def _name(path: Path, uses: Sequence[AdapterUse]) -> str:
    """Return what the UNet calls the adapter of a file; modules' names hold no points."""
    place = list(dict.fromkeys(use.path for use in uses)).index(path)
    return f"adapter{place}"
