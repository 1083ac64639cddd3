"""Numpy arrays out of somebody's pickle, without running what a pickle can run."""

import pickle
from pathlib import Path

import numpy as np

from svd.errors import IntegrityError

ArrayTree = dict[str, "np.ndarray | ArrayTree"]

# The three names a pickled array of plain numbers needs; `_reconstruct` moved with numpy 2.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows arrays and nothing else; whatever else the stream names is refused unread."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def read_array_tree(path: Path) -> ArrayTree:
    """Return nested dicts of numeric arrays from a pickle file.

    Raises:
        IntegrityError: The stream holds, or asks to import, anything else.
    """
    try:
        with path.open("rb") as file:
            tree = _ArrayUnpickler(file).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        IndexError,
        TypeError,
        ValueError,
    ) as err:
        raise IntegrityError(f"{path}: not a pickle of plain arrays: {err}") from err
    _check(tree, origin=str(path))
    return tree  # type: ignore[no-any-return]  # checked above, node by node


def flatten(tree: ArrayTree, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], np.ndarray]:
    """Return the arrays of a tree under their full paths."""
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, (*prefix, key))
        else:
            flat[*prefix, key] = value
    return flat


def _check(node: object, *, origin: str) -> None:
    if isinstance(node, np.ndarray) and node.dtype.kind in "fiu":
        return
    if not isinstance(node, dict):
        raise IntegrityError(f"{origin}: holds a {type(node).__name__}, not only numeric arrays")
    for key, value in node.items():
        if not isinstance(key, str):
            raise IntegrityError(f"{origin}: holds a key that is not text")
        _check(value, origin=origin)
