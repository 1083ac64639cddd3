"""What every store promises, and how objects are named in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from svd.errors import IntegrityError, StoreError

OBJECTS = "objects/sha256/"  # below it lie the objects that are named by their content


class StoredObject(NamedTuple):
    """One entry of a listing."""

    key: str
    size_bytes: int
    modified_s: float  # when it was last written, seconds since 1970 by the store's clock


class Store(Protocol):
    """Where bytes rest. Keys are relative paths with `/` between their parts.

    Every method raises `StoreError` when the store does not answer after its retries, and
    `MissingInputError` when a key that is to be read is not there.
    """

    @property
    def uri(self) -> str:
        """The store's address, without a slash at its end."""

    def put_file(self, path: Path, key: str) -> str:
        """Store a file, replacing what was there; return the sha256 (hex) of what is stored."""

    def take_file(self, path: Path, key: str) -> str:
        """Store a file as `put_file` does and remove it: a folder of its disk renames it."""

    def put_bytes(self, data: bytes, key: str) -> None:
        """Store bytes, replacing what was there."""

    def put_if_absent(self, data: bytes, key: str) -> bool:
        """Store bytes unless the key exists; among any number of racers one gets True."""

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Write an object to a file, atomically.

        Args:
            key: The object.
            path: The file to write; its folder is made.
            sha256: What the bytes must hash to; default the hash in a content-addressed key.

        Raises:
            IntegrityError: The bytes have another hash; nothing is written.
        """

    def as_file(self, key: str, folder: Path, *, sha256: str) -> Path:
        """Return a file with an object's bytes, to be read and not changed.

        Args:
            key: The object.
            folder: Where a copy goes if the store has no file of its own.
            sha256: What the bytes must hash to.

        Raises:
            IntegrityError: The bytes have another hash.
        """

    def get_bytes(self, key: str) -> bytes:
        """Return an object's bytes; a content-addressed one is verified."""

    def read_range(self, key: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only where the object ends."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose key starts with a prefix, in the order of their keys."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""

    def delete(self, key: str) -> None:
        """Remove an object; removing an absent one is no error."""

    def delete_tree(self, prefix: str) -> None:
        """Remove every object below a prefix, which is empty or ends in `/`."""


def object_key(sha256: str) -> str:
    """Return the key of an object named by its content."""
    return f"{OBJECTS}{sha256[:2]}/{sha256}"


def sha256_in_key(key: str) -> str | None:
    """Return the hash that a content-addressed key promises; None for any other key."""
    name = key.rpartition("/")[2]
    return name if key == object_key(name) and len(name) == 64 else None


def check_sha256(place: str, actual: str, promised: str | None) -> None:
    """Compare a hash with the promised one, if one was promised.

    Raises:
        IntegrityError: They differ.
    """
    if promised is not None and actual != promised:
        raise IntegrityError(f"{place}: sha256 is {actual}, not {promised}")


def check_key(key: str) -> str:
    """Return a key that stays below its store.

    Raises:
        StoreError: The key is empty, absolute, or has empty, `.` or `..` parts.
    """
    if any(part in {"", ".", ".."} for part in key.split("/")) or "\\" in key or "\0" in key:
        raise StoreError(f"{key!r} is no key: parts joined by /, none of them empty, . or ..")
    return key
