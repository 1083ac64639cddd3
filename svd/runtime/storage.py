"""Bytes at rest, by URI: a folder or an S3 bucket, with the same promises.

A write is seen whole or not at all, bytes are checked when read, and what must not be written
twice is written with `put_if_absent`. Objects that others refer to are named by their content.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from svd.errors import ConfigError, IntegrityError
from svd.runtime.fingerprint import file_sha256
from svd.runtime.store import OBJECTS, Store, StoredObject, check_sha256, object_key, sha256_in_key
from svd.runtime.workspace import Workspace


def open_store(uri: str) -> Store:
    """Open a store: `s3://bucket/prefix`, `file:///folder`, or a plain path.

    S3 is reached through the usual AWS chain: AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_S3 for a server
    of one's own, AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE, roles. Nothing is asked of the network.

    Raises:
        ConfigError: The URI is of another kind or names no bucket.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise ConfigError(f"{uri}: an S3 store is s3://bucket or s3://bucket/prefix")
        from svd.runtime.storage_s3 import S3Store

        return S3Store(bucket=parts.netloc, prefix=parts.path.strip("/"))
    if parts.scheme not in {"", "file"} or (parts.scheme == "file" and parts.netloc):
        raise ConfigError(f"{uri}: a store is s3://bucket/prefix, file:///folder or a path")
    from svd.runtime.storage_folder import FolderStore

    return FolderStore(Path(parts.path if parts.scheme else uri).expanduser().absolute())


def default_store_uri(workspace: Workspace) -> str:
    """Return the store of a checkout: SVD_STORE, else a folder below `.svd/`."""
    return os.environ.get("SVD_STORE") or str(workspace.state / "store")


def put_object(store: Store, path: Path) -> str:
    """Store a file under the name of its content; return the key. Stored twice, sent once."""
    key = object_key(file_sha256(path))
    if not store.exists(key):
        stored = store.put_file(path, key)
        if key != object_key(stored):
            store.delete(key)
            raise IntegrityError(f"{path}: changed while it was stored in {store.uri}")
    return key


class VerifyReport(NamedTuple):
    """What reading every content-addressed object again showed."""

    num_objects: int
    size_bytes: int
    damaged: tuple[str, ...]  # keys whose bytes do not have the hash in their name


def verify_objects(store: Store) -> VerifyReport:
    """Read every content-addressed object and compare it with its name."""
    num_objects, size_bytes, damaged = 0, 0, []
    for stored in store.list(OBJECTS):
        num_objects += 1
        size_bytes += stored.size_bytes
        try:
            for _ in read_verified(store, stored):
                pass
        except IntegrityError:
            damaged.append(stored.key)
    return VerifyReport(num_objects, size_bytes, tuple(damaged))


def read_verified(store: Store, stored: StoredObject, *, chunk: int = 8 << 20) -> Iterator[bytes]:
    """Yield an object in pieces; the hash its key promises is checked after the last one.

    Raises:
        IntegrityError: The bytes do not have the promised hash.
    """
    digest = hashlib.sha256()
    for offset in range(0, stored.size_bytes, chunk):
        piece = store.read_range(stored.key, offset, chunk)
        digest.update(piece)
        yield piece
    check_sha256(f"{store.uri}/{stored.key}", digest.hexdigest(), sha256_in_key(stored.key))
