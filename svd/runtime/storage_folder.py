"""A store that is a folder."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from svd.errors import MissingInputError, StoreError
from svd.runtime.fingerprint import file_sha256
from svd.runtime.store import StoredObject, check_key, check_sha256, sha256_in_key

_STAGING = ".partial"  # folder of writes in flight, on the same file system as the objects


class FolderStore:
    """Objects are files; a write goes to a staging folder, is flushed to disk, then renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def uri(self) -> str:
        """The folder's path."""
        return str(self._root)

    def put_file(self, path: Path, key: str) -> str:
        """Store a file; return the sha256 of the bytes as stored."""
        digest = hashlib.sha256()

        def copy(target: BinaryIO) -> None:
            with path.open("rb") as source:
                while piece := source.read(1 << 20):
                    digest.update(piece)
                    target.write(piece)

        self._write(key, copy, commit=_replace)
        return digest.hexdigest()

    def take_file(self, path: Path, key: str) -> str:
        """Rename a file into the folder where both are on one disk, else copy it."""
        target = self._path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _flush(path)
            sha256 = file_sha256(path)
            path.replace(target)
            _flush(target.parent)
        except OSError as err:
            if err.errno != errno.EXDEV:
                raise StoreError(f"{self.uri}/{key}: cannot write: {err}") from err
            sha256 = self.put_file(path, key)
            path.unlink()
        return sha256

    def put_bytes(self, data: bytes, key: str) -> None:
        """Store bytes."""
        self._write(key, lambda target: target.write(data), commit=_replace)

    def put_if_absent(self, data: bytes, key: str) -> bool:
        """Store bytes unless the key exists."""
        return self._write(key, lambda target: target.write(data), commit=_link)

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Copy an object to a file after checking its hash."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._reading(key) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            promised = sha256 or sha256_in_key(key)
            check_sha256(f"{self.uri}/{key}", file_sha256(partial), promised)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def as_file(self, key: str, folder: Path, *, sha256: str) -> Path:  # noqa: ARG002 (no copy)
        """Return the object's own file after checking its hash."""
        path = self._path(key)
        if not path.is_file():
            raise MissingInputError(f"{self.uri}/{key}: not in the store")
        check_sha256(f"{self.uri}/{key}", file_sha256(path), sha256)
        return path

    def get_bytes(self, key: str) -> bytes:
        """Return an object's bytes."""
        with self._reading(key) as source:
            data = source.read()
        check_sha256(f"{self.uri}/{key}", hashlib.sha256(data).hexdigest(), sha256_in_key(key))
        return data

    def read_range(self, key: str, offset: int, size: int) -> bytes:
        """Return bytes from the middle."""
        with self._reading(key) as source:
            source.seek(offset)
            return source.read(size)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose key starts with a prefix, in the order of their keys."""
        folder = self._root / prefix.rpartition("/")[0]
        found = []
        for path in folder.rglob("*"):
            key = path.relative_to(self._root).as_posix()
            if key.startswith(prefix) and not key.startswith(_STAGING) and path.is_file():
                stat = path.stat()
                found.append(StoredObject(key, stat.st_size, stat.st_mtime))
        yield from sorted(found)

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._path(key).unlink(missing_ok=True)

    def delete_tree(self, prefix: str) -> None:
        """Remove a folder, if it is there."""
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        shutil.rmtree(folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[BinaryIO]:
        try:
            with self._path(key).open("rb") as file:
                yield file
        except (FileNotFoundError, IsADirectoryError) as err:
            raise MissingInputError(f"{self.uri}/{key}: not in the store") from err
        except PermissionError as err:
            raise StoreError(f"{self.uri}/{key}: {err.strerror}") from err

    def _write(
        self,
        key: str,
        fill: Callable[[BinaryIO], object],
        *,
        commit: Callable[[Path, Path], bool],
    ) -> bool:
        target = self._path(key)
        staged = self._root / _STAGING / uuid.uuid4().hex
        try:
            staged.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            return commit(staged, target)
        except OSError as err:
            raise StoreError(f"{self.uri}/{key}: cannot write: {err}") from err
        finally:
            staged.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(staged: Path, target: Path) -> bool:
    staged.replace(target)
    return True


def _link(staged: Path, target: Path) -> bool:
    """Give the staged bytes their name; the file system lets one racer do so."""
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    return True
