"""Which objects there are: names, files and splits of the sources that a recipe names."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from svd.config.orbits import MeshSource, MvImgNetSource, OrbitsConfig, ProceduralSource
from svd.data.orbits.mesh import MESH_SUFFIXES, source_files
from svd.data.orbits.procedural import write_object
from svd.errors import ConfigError, MissingInputError
from svd.media.picture import PICTURE_SUFFIXES
from svd.types.annotation import SplitName


class ObjectFile(NamedTuple):
    """An object to be seen."""

    object_id: str
    path: Path  # a mesh, or a folder of pictures
    uri: str  # below the source's root
    kind: Literal["mesh", "filmed"]
    up: Literal["y", "z"] = "y"


def list_objects(
    config: OrbitsConfig, root: Path, made: Path, *, seed: int
) -> tuple[ObjectFile, ...]:
    """Return all objects by name; procedural ones are written first, where they are not there.

    Args:
        config: Names the sources.
        root: Folders of sources are below it, if they are not absolute.
        made: Gets procedural objects.
        seed: Of procedural objects.

    Raises:
        MissingInputError: A folder is not there.
        ConfigError: There are fewer than two objects, or two have one name.
    """
    objects: list[ObjectFile] = []
    for source in config.sources:
        if isinstance(source, ProceduralSource):
            objects += _procedural(source, made, seed)
        elif isinstance(source, MeshSource):
            objects += _meshes(_folder(root, source.folder), source.up)
        else:
            objects += _filmed(source, root)
    names = [one.object_id for one in objects]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ConfigError(f"orbits.sources: two objects are called {twice[0]}")
    if len(objects) < 2:
        raise ConfigError(f"orbits.sources hold {len(objects)} objects; 2 are the least to split")
    return tuple(sorted(objects, key=lambda one: one.object_id))


def assign_splits(names: Iterable[str], heldout_share: float) -> Mapping[str, SplitName]:
    """Hold out the objects whose hashed names come first; at least one, and never all.

    An object that comes or goes moves at most one other from one side to the other.
    """
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    num = min(max(1, round(heldout_share * len(ordered))), len(ordered) - 1)
    return {name: "heldout" if place < num else "train" for place, name in enumerate(ordered)}


def source_sha256(one: ObjectFile) -> str:
    """Return a hash over the names and bytes of all files of an object."""
    files = _pictures(one.path) if one.kind == "filmed" else source_files(one.path)
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _folder(root: Path, folder: str) -> Path:
    path = root / folder
    if not path.is_dir():
        raise MissingInputError(f"orbits.sources: there is no folder {path}")
    return path


def _procedural(source: ProceduralSource, made: Path, seed: int) -> Iterator[ObjectFile]:
    for index in range(source.num_objects):
        write_object(made, index, seed=seed)
    yield from _meshes(made, "y")


def _meshes(folder: Path, up: Literal["y", "z"]) -> Iterator[ObjectFile]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in MESH_SUFFIXES and path.is_file() and not path.is_symlink():
            is_scanned = path.parent.name == "meshes" and path.stem == "model"
            named = path.parent.parent if is_scanned else path.with_suffix("")
            yield ObjectFile(
                object_id=_clean(named.name),
                path=path,
                uri=path.relative_to(folder).as_posix(),
                kind="mesh",
                up=up,
            )


def _filmed(source: MvImgNetSource, root: Path) -> Iterator[ObjectFile]:
    folder = _folder(root, source.folder)
    for path in sorted(folder.glob("*/*/images")):
        if path.is_dir():
            yield ObjectFile(
                object_id=_clean(f"{path.parent.parent.name}-{path.parent.name}"),
                path=path,
                uri=path.relative_to(folder).as_posix(),
                kind="filmed",
            )


def _pictures(folder: Path) -> dict[str, Path]:
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
    }


def filmed_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a filmed object in the order of their names."""
    return list(_pictures(folder).values())


def _clean(name: str) -> str:
    """Return a name that is safe in a tar and a path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80] or "unnamed"
