"""One rank's tensors in a safetensors file, and fragments read back out of any set of them.

Tensors are stretches of flattened parameters, named "<kind>/<parameter>"; where each begins stands
in the file's metadata. So what was written by some ranks can be read by others, cut elsewhere.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from svd.data.stream.shards import ByteSource
from svd.errors import CheckpointError, IntegrityError
from svd.training.checkpoints.partition import Fragment, Partition

_HEADER_LENGTH = 8  # bytes that hold the size of a safetensors header
_MAX_HEADER_BYTES = 100_000_000  # bound of the safetensors format
_STARTS = "starts"  # key of a file's metadata: {parameter: first element}, as JSON

# Kind -> flat tensors parallel to the engine's masters: "master", "ema", "exp_avg", "exp_avg_sq".
Shards = Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Copies of the fragments that a rank holds, in CPU memory.

    Attributes:
        tensors: "<kind>/<parameter>" -> its stretch.
        starts: Parameter -> where its stretch begins.
    """

    tensors: Mapping[str, Tensor]
    starts: Mapping[str, int]

    def write(self, path: Path) -> None:
        """Write a file.

        Raises:
            OSError: The disk refused.
        """
        try:
            save_file(dict(self.tensors), path, metadata={_STARTS: json.dumps(dict(self.starts))})
        except SafetensorError as err:
            raise OSError(f"{path}: {err}") from err


def take_snapshot(partition: Partition, shards: Shards) -> Snapshot:
    """Copy the fragments that this rank holds; training may go on at once."""
    return Snapshot(
        tensors={
            f"{kind}/{fragment.name}": fragment.read(flats).detach().to("cpu", copy=True)
            for kind, flats in shards.items()
            for fragment in partition.fragments
        },
        starts={fragment.name: fragment.start for fragment in partition.fragments},
    )


def needed_files(source: ByteSource, keys: Iterable[str], partition: Partition) -> Iterator[str]:
    """Yield the files that hold elements of this rank's fragments, told by their headers alone.

    Args:
        source: Where the files lie.
        keys: Of all files; looked at in this order until nothing is missing.
        partition: This rank's.

    Raises:
        IntegrityError: One is no file of this kind.
    """
    missing = sum(fragment.numel for fragment in partition.fragments)
    for key in keys:
        if missing == 0:
            return
        if held := _count_held(source, key, partition):
            missing -= held
            yield key


def _count_held(source: ByteSource, key: str, partition: Partition) -> int:
    """Return how many elements a file holds; those of each kind are the same and count once.

    Raises:
        IntegrityError: It is no file of this kind.
    """
    size = int.from_bytes(source.read_range(key, 0, _HEADER_LENGTH), "little")
    if size > _MAX_HEADER_BYTES:
        raise IntegrityError(f"{key} is not a safetensors file")
    try:
        header = json.loads(source.read_range(key, _HEADER_LENGTH, size))
        starts = json.loads(header.pop("__metadata__")[_STARTS])
        sizes = {
            name.partition("/")[2]: math.prod(entry["shape"]) for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError) as err:
        raise IntegrityError(f"{key} is not a safetensors file of a checkpoint") from err
    held = 0
    for fragment in partition.fragments:
        if fragment.name in starts:
            start = starts[fragment.name]
            stop = min(start + sizes[fragment.name], fragment.start + fragment.numel)
            held += max(0, stop - max(start, fragment.start))
    return held


class _Stretch(NamedTuple):
    start: int
    stop: int
    file: Any  # safe_open is untyped


def load_shards(paths: Sequence[Path], partition: Partition, shards: Shards) -> None:
    """Fill this rank's fragments from whichever files hold their elements.

    Raises:
        CheckpointError: The files do not hold all of them.
    """
    with ExitStack() as stack:
        stored: dict[str, list[_Stretch]] = {}
        for path in paths:
            file = stack.enter_context(safe_open(path, framework="pt"))
            sizes = {
                name.partition("/")[2]: math.prod(file.get_slice(name).get_shape())
                for name in file.keys()  # noqa: SIM118 (not a dict: it has no iterator)
            }
            for name, start in json.loads(file.metadata()[_STARTS]).items():
                stored.setdefault(name, []).append(_Stretch(start, start + sizes[name], file))
        for kind, flats in shards.items():
            for fragment in partition.fragments:
                key = f"{kind}/{fragment.name}"
                fragment.write(flats, _assemble(key, fragment, stored.get(fragment.name, [])))


def _assemble(key: str, fragment: Fragment, stretches: Sequence[_Stretch]) -> Tensor:
    values = torch.empty(fragment.numel, dtype=torch.float32)
    stop = fragment.start + fragment.numel
    filled = 0
    for stretch in stretches:
        low, high = max(stretch.start, fragment.start), min(stretch.stop, stop)
        if low < high:
            part = stretch.file.get_slice(key)[low - stretch.start : high - stretch.start]
            values[low - fragment.start : high - fragment.start] = part
            filled += high - low
    if filled != fragment.numel:
        raise CheckpointError(
            f"{key}: the checkpoint holds {filled} of elements {fragment.start}..{stop}"
        )
    return values
