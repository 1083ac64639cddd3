"""Arrays out of a TorchScript archive, without running the program that it carries.

Such an archive is a zip: a pickle of the module tree, the bytes of each tensor, and source code.
The code is not read. The pickle goes through an unpickler for which modules are empty shells.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from svd.errors import IntegrityError
from svd.models.critics.array_tree import ArrayTree

_CLASSES = "__torch__."  # the package of an archive's own classes


class _Module:
    """Stands for any module of the archive; holds what was pickled into it."""


class _FloatStorage:
    """Names the one element type that is read: float32."""


class _ModuleUnpickler(pickle.Unpickler):
    """Knows shells, float32 tensors and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, top: str) -> None:
        super().__init__(archive.open(f"{top}/data.pkl"))
        self._archive, self._top = archive, top

    def find_class(self, module: str, name: str) -> object:
        if module.startswith(_CLASSES):
            return _Module
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            ("torch", "FloatStorage"): _FloatStorage,
            ("torch.jit._pickle", "build_intlist"): list,
            ("collections", "OrderedDict"): OrderedDict,
        }
        try:
            return known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, element, key, _device, num_elements = pid
        if kind != "storage" or element is not _FloatStorage:
            raise pickle.UnpicklingError("it holds a tensor that is not of float32")
        data = self._archive.read(f"{self._top}/data/{key}")
        if len(data) != 4 * num_elements:
            raise pickle.UnpicklingError(f"tensor data {key} has {len(data)} bytes")
        return np.frombuffer(data, dtype="<f4")


def _view(
    storage: np.ndarray, offset: int, shape: Sequence[int], stride: Sequence[int], *_: object
) -> np.ndarray:
    """Return a tensor's elements; only dense ones that fill their storage are read."""
    array = storage.reshape(shape)  # raises for another number of elements
    if offset != 0 or tuple(4 * step for step in stride) != array.strides:
        raise pickle.UnpicklingError("it holds a tensor that is a part of another")
    return array


def read_module_archive(path: Path) -> ArrayTree:
    """Return the tensors of a TorchScript module as nested dicts, by attribute.

    Raises:
        IntegrityError: Not such an archive, or it asks to import anything.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            top = archive.namelist()[0].partition("/")[0]
            module = _ModuleUnpickler(archive, top).load()
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        EOFError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
    ) as err:
        raise IntegrityError(f"{path}: not a TorchScript archive of plain tensors: {err}") from err
    if not isinstance(module, _Module):
        raise IntegrityError(f"{path}: holds a {type(module).__name__}, not a module")
    return _arrays(module)


def _arrays(module: _Module) -> ArrayTree:
    tree: ArrayTree = {}
    for name, value in vars(module).items():
        if isinstance(value, np.ndarray):
            tree[name] = value
        elif isinstance(value, _Module):
            tree[name] = _arrays(value)
    return tree
