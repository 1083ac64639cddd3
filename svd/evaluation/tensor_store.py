"""Tensors on disk, one small file for each clip: what a killed run has done is not done again."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from svd.atomic import new_file

logger = logging.getLogger(__name__)


class Stored(NamedTuple):
    """Tensors and the plain facts kept beside them."""

    tensors: dict[str, Tensor]
    facts: dict[str, object]


class TensorStore:
    """A folder of `<name>.safetensors`, each of which says what it was made from.

    A file that is absent, torn, or made from something else (another key) is as good as absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, key: str) -> Stored | None:
        """Return what lies under a name if it was made from `key`."""
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key:
                    return None
                tensors = {each: file.get_tensor(each) for each in file.keys()}  # noqa: SIM118
                return Stored(tensors, json.loads(metadata.get("facts", "{}")))
        except (SafetensorError, ValueError):
            logger.warning("a cached file is damaged", extra={"path": str(path)})
            return None

    def put(
        self,
        name: str,
        key: str,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Keep tensors and JSON facts under a name, atomically."""
        path = self._path(name)
        metadata = {"key": key, "facts": json.dumps(dict(facts or {}))}
        plain = {each: value.contiguous() for each, value in tensors.items()}
        with new_file(path) as partial:
            save_file(plain, partial, metadata)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"
