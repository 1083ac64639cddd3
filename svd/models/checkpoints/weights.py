"""Weights in safetensors files: saved atomically, loaded only if every tensor fits.

Nothing here unpickles. A file whose names, shapes or values are not what the module needs stops
with a list; what a later stage may start from is said in `svd.models.checkpoints.start`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from svd.atomic import new_file
from svd.errors import CheckpointError, MissingInputError

_NUM_LISTED = 8  # names listed per kind of fault; the message says how many more there are


def save_weights(
    module: nn.Module, path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a module's state dict, atomically; the same weights give the same bytes."""
    save_state(module.state_dict(), path, metadata=metadata)


def save_state(
    state: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors of any device and memory layout, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with new_file(path) as partial:
        save_file(plain, partial, metadata=dict(metadata or {}))


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file into a module; names and shapes must be exactly the module's.

    One tensor is in memory at a time. Values are cast to the module's dtype.

    Raises:
        CheckpointError: Tensors are missing, extra, mis-shaped or not finite, or the file is
            malformed. The module is untouched, unless a value was not finite.
        MissingInputError: There is no such file.
    """
    own = module.state_dict()
    with open_weights(path) as weights:
        check_fit({name: tensor.shape for name, tensor in own.items()}, weights.shapes, path)
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(check_finite(tensor, name, path))


class Weights:
    """An open safetensors file, read one tensor at a time."""

    def __init__(self, path: Path, file: Any) -> None:  # safe_open is untyped
        self.path = path
        self._file = file
        self.shapes: dict[str, torch.Size] = {
            name: torch.Size(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118 (not a dict: it has no iterator)
        }

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.shapes:
            yield name, self[name]

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    @property
    def metadata(self) -> dict[str, str]:
        """Text stored beside the tensors."""
        return dict(self._file.metadata() or {})


@contextmanager
def open_weights(path: Path) -> Iterator[Weights]:
    """Open a safetensors file for reading.

    Raises:
        CheckpointError: The file is not whole or not safetensors.
        MissingInputError: There is no such file.
    """
    if not path.is_file():
        raise MissingInputError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield Weights(path, file)
    except SafetensorError as err:
        raise CheckpointError(f"{path}: not a whole safetensors file: {err}") from err


def check_fit(
    expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size], origin: Path | str
) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: They differ; the message lists what is missing, extra and mis-shaped.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshaped = [
        f"{name} is {tuple(found[name])}, needs {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    faults = [
        _listed(kind, names)
        for kind, names in (("missing", missing), ("extra", extra), ("mis-shaped", misshaped))
        if names
    ]
    if faults:
        raise CheckpointError(
            f"{origin}: the weights do not fit the architecture: " + "; ".join(faults)
        )


def _listed(kind: str, names: list[str]) -> str:
    more = f", and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:_NUM_LISTED])}{more}"


def check_finite(tensor: Tensor, name: str, origin: Path | str) -> Tensor:
    """Return the tensor.

    Raises:
        CheckpointError: It holds NaN or infinity.
    """
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{origin}: {name} holds values that are not finite")
    return tensor
