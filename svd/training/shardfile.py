"""One rank's tensors in a safetensors file, and fragments read back out of any set of them.

Tensors are stretches of flattened parameters, named "<kind>/<parameter>"; where each begins stands
in the file's metadata. So what was written by some ranks can be read by others, cut elsewhere.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from svd.errors import CheckpointError
from svd.training.partition import Fragment, Partition

_STARTS = "starts"  # key of a file's metadata: {parameter: first element}, as JSON

# Kind -> flat tensors parallel to the engine's masters: "master", "ema", "exp_avg", "exp_avg_sq".
Shards = Mapping[str, Sequence[Tensor]]


def save_shards(path: Path, partition: Partition, shards: Shards) -> None:
    """Write the fragments that this rank holds.

    Raises:
        OSError: The disk refused.
    """
    tensors = {
        f"{kind}/{fragment.name}": fragment.read(flats).detach().cpu().contiguous()
        for kind, flats in shards.items()
        for fragment in partition.fragments
    }
    starts = {fragment.name: fragment.start for fragment in partition.fragments}
    try:
        save_file(tensors, path, metadata={_STARTS: json.dumps(starts)})
    except SafetensorError as err:
        raise OSError(f"{path}: {err}") from err


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
