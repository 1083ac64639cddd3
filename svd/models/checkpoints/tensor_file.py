"""Tensors that are read when they are needed, and files written from them one by one.

Converting a checkpoint of many gigabytes needs memory for its largest tensors only: reading maps
no file into memory, and writing knows the header from shapes alone.
"""

import json
import logging
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from svd.atomic import new_file
from svd.errors import CheckpointError, MissingInputError
from svd.models.checkpoints.weights import check_finite
from svd.runtime.progress import track

logger = logging.getLogger(__name__)

# safetensors' names of the dtypes that occur in weights.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor known by shape and dtype, whose values are read or computed on demand.

    Attributes:
        shape: Of the tensor.
        dtype: Of the tensor.
        load: Returns the values; may be called more than once.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return prod(self.shape) * self.dtype.itemsize

    def reshaped(self, *shape: int) -> "LazyTensor":
        """Return the same values in another shape."""
        return LazyTensor(shape, self.dtype, lambda: self.load().reshape(shape))

    def transposed(self) -> "LazyTensor":
        """Return the transpose of a matrix."""
        return LazyTensor(self.shape[::-1], self.dtype, lambda: self.load().t())

    def part(self, index: int, num_parts: int) -> "LazyTensor":
        """Return one of several equal parts along the first axis."""
        rows = self.shape[0] // num_parts
        shape = (rows, *self.shape[1:])
        return LazyTensor(shape, self.dtype, lambda: self.load()[index * rows : (index + 1) * rows])

    @staticmethod
    def joined(parts: "list[LazyTensor]") -> "LazyTensor":
        """Return parts of one shape, joined along the first axis."""
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        return LazyTensor(shape, parts[0].dtype, lambda: torch.cat([part.load() for part in parts]))


def from_tensor(tensor: Tensor) -> LazyTensor:
    """Return a tensor that is in memory already."""
    return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def read_safetensors(path: Path) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Return the tensors of a safetensors file, unread, and its metadata.

    Raises:
        CheckpointError: The file is not whole, not safetensors, or has an unknown dtype.
        MissingInputError: There is no such file.
    """
    if not path.is_file():
        raise MissingInputError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt"):  # checks the header against the file's size
            pass
    except SafetensorError as err:
        raise CheckpointError(f"{path}: not a whole safetensors file: {err}") from err
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
    metadata = header.pop("__metadata__", None) or {}
    tensors = {
        name: _entry(path, name, entry, data_start=8 + header_bytes)
        for name, entry in header.items()
    }
    return tensors, metadata


def _entry(path: Path, name: str, entry: dict[str, object], *, data_start: int) -> LazyTensor:
    dtype_name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype_name not in _DTYPES or not isinstance(shape, list) or not isinstance(offsets, list):
        raise CheckpointError(f"{path}: {name} has dtype {dtype_name}, which weights never have")
    dtype = _DTYPES[str(dtype_name)]
    load = partial(_read_span, path, data_start + offsets[0], tuple(shape), dtype)
    return LazyTensor(tuple(shape), dtype, load)


def _read_span(path: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    buffer = torch.empty(prod(shape) * dtype.itemsize, dtype=torch.uint8)
    with path.open("rb") as file:
        file.seek(start)
        num_read = file.readinto(buffer.numpy().data)
    if num_read != len(buffer):
        raise CheckpointError(f"{path}: ends {len(buffer) - num_read} bytes early")
    return buffer.view(dtype).reshape(shape)


def read_pickled(path: Path) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Return the tensors of a .ckpt file through PyTorch's weights-only reader, and no metadata.

    The reader builds tensors and plain containers and calls nothing that the file names.

    Raises:
        CheckpointError: The file is malformed, names anything but tensors, or has no state dict.
        MissingInputError: There is no such file.
    """
    if not path.is_file():
        raise MissingInputError(f"no weights at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as err:
        raise CheckpointError(
            f"{path}: refused by the weights-only reader, which never runs code: {_reason(err)}"
        ) from err
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds no state dict")
    return {str(k): from_tensor(v) for k, v in state.items() if isinstance(v, Tensor)}, {}


def _reason(err: Exception) -> str:
    """Return what the reader found, without its advice to switch the safety off."""
    text = str(err).strip() or type(err).__name__
    found = re.search(r"WeightsUnpickler error: (.*?)(?: by default)?\. ?Please", text, re.DOTALL)
    return found[1] if found else text.splitlines()[0]


def write_safetensors(
    path: Path,
    tensors: Mapping[str, LazyTensor],
    *,
    origin: Path,
    description: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file tensor by tensor, atomically; equal tensors give equal bytes.

    Args:
        path: The file; its folder is made.
        tensors: What to write; one at a time is in memory.
        origin: Where the tensors come from, for errors.
        description: What the progress line calls it.
        metadata: Text to store beside the tensors.

    Raises:
        CheckpointError: A tensor holds values that are not finite, or has an unknown dtype.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    with new_file(path) as partial, partial.open("wb") as file:
        _write_header(file, {name: tensors[name] for name in names}, metadata or {}, path)
        for name in track(names, total=len(names), description=description, unit="tensors"):
            _write_values(file, check_finite(tensors[name].load(), name, origin))


def _write_header(
    file: BinaryIO, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], path: Path
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    start = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NAMES:
            raise CheckpointError(f"{path}: {name} has dtype {tensor.dtype}, weights never have")
        stop = start + tensor.size_bytes
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of eight bytes
    file.write(struct.pack("<Q", len(text)) + text)


def _write_values(file: BinaryIO, tensor: Tensor) -> None:
    file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
