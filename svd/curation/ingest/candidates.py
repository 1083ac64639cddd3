"""Files that may become raw videos: where each comes from, and how its bytes are had."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from svd.config.ingest import PaintingStyle
from svd.curation.ingest.films import Film, copy_between_keyframes
from svd.curation.ingest.paintings import paint
from svd.curation.ingest.photos import read_photo
from svd.curation.ingest.synthetic import Picture, write_synthetic
from svd.curation.ingest.synthetic_plan import VideoPlan
from svd.errors import MediaError, MissingInputError, StoreError
from svd.runtime.storage import open_store


class Obtained(NamedTuple):
    """A file whose bytes are at hand."""

    path: Path
    is_ours: bool  # made or fetched for this run, so it may be moved away


class Candidate(Protocol):
    """Something that may turn out to be a video."""

    @property
    def origin(self) -> str:
        """Where it comes from, for people; unique within a run."""

    @property
    def licence(self) -> str:
        """SPDX identifier, or the words of the source."""

    @property
    def version(self) -> str:
        """Changes when the bytes may have changed; a finished examination is kept by it."""

    @property
    def size_bytes(self) -> int:
        """Its size, or a guess; the largest are examined first."""

    def obtain(self, folder: Path) -> Obtained:
        """Return its file, made below the folder where it has none.

        Raises:
            MediaError: Its bytes cannot be had.
        """


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that lies on this machine."""

    origin: str
    licence: str
    path: Path

    @property
    def version(self) -> str:
        """Size and time of last change."""
        status = self.path.lstat()
        return f"{status.st_size} {status.st_mtime_ns}"

    @property
    def size_bytes(self) -> int:
        """From the file system."""
        return self.path.lstat().st_size

    def obtain(self, folder: Path) -> Obtained:  # noqa: ARG002 - it need not be made
        """Return the file where it is."""
        return Obtained(self.path, is_ours=False)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object of an S3 store."""

    licence: str
    store_uri: str
    key: str
    size_bytes: int

    @property
    def origin(self) -> str:
        """Its address."""
        return f"{self.store_uri}/{self.key}"

    @property
    def version(self) -> str:
        """Its size; stores tell no more in a listing."""
        return str(self.size_bytes)

    def obtain(self, folder: Path) -> Obtained:
        """Download it."""
        path = folder / f"object{PurePosixPath(self.key).suffix[:8]}"
        try:
            open_store(self.store_uri).get_file(self.key, path)
        except (StoreError, MissingInputError) as err:
            raise MediaError(self.origin, "not-fetched", str(err)) from err
        return Obtained(path, is_ours=True)


@dataclass(frozen=True, slots=True)
class FilmPart:
    """A film that was fetched by pinned hash, or a part of it."""

    film: Film
    path: Path
    start_s: float
    stop_s: float | None

    @property
    def _is_whole(self) -> bool:
        return self.start_s == 0 and self.stop_s is None

    @property
    def origin(self) -> str:
        """Package, member, and part."""
        if self._is_whole:
            return self.film.origin
        stop = "" if self.stop_s is None else f"{self.stop_s:g}"
        return f"{self.film.origin}#t={self.start_s:g},{stop}"  # as in W3C media fragments

    @property
    def licence(self) -> str:
        """SPDX."""
        return self.film.licence

    @property
    def version(self) -> str:
        """The film's hash."""
        return self.film.sha256

    @property
    def size_bytes(self) -> int:
        """Of the whole film."""
        return self.path.stat().st_size

    def obtain(self, folder: Path) -> Obtained:
        """Return the film, or copy the part out of it."""
        if self._is_whole:
            return Obtained(self.path, is_ours=False)
        target = folder / "part.mp4"
        copy_between_keyframes(self.path, target, start_s=self.start_s, stop_s=self.stop_s)
        return Obtained(target, is_ours=True)


@dataclass(frozen=True, slots=True)
class Painting:
    """A picture our own code draws."""

    key: tuple[int, ...]
    width: int
    height: int
    style: PaintingStyle

    def load(self) -> Picture:
        """Draw it."""
        return paint(*self.key, width=self.width, height=self.height, style=self.style)


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture file."""

    path: Path

    def load(self) -> Picture:
        """Read it."""
        return read_photo(self.path)


@dataclass(frozen=True, slots=True)
class SyntheticVideo:
    """A video still to be made."""

    plan: VideoPlan
    pictures: Mapping[str, Painting | Photograph]  # those the plan names
    licence: str

    @property
    def origin(self) -> str:
        """The plan's name."""
        return f"synthetic/{self.plan.name}"

    @property
    def version(self) -> str:
        """The plan."""
        return self.plan.content_hash()

    @property
    def size_bytes(self) -> int:
        """One byte per ten pixels."""
        return self.plan.width * self.plan.height * self.plan.num_frames // 10

    def obtain(self, folder: Path) -> Obtained:
        """Make it."""
        pictures = {name: picture.load() for name, picture in self.pictures.items()}
        return Obtained(write_synthetic(self.plan, pictures, folder), is_ours=True)


def readable_name(name: str | Path) -> str:
    """Return a file name as text that any JSON can hold: bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
