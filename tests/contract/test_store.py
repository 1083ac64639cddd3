"""What every store promises: the same test bodies for a folder and for a real S3 server."""

import hashlib
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from svd.errors import ConfigError, IntegrityError, MissingInputError, StoreError
from svd.runtime.storage import open_store, put_object, verify_objects
from svd.runtime.storage_s3 import PART_BYTES, S3Store
from svd.runtime.store import Store, object_key


def new_s3_store(prefix: str = "some/prefix") -> S3Store:
    store = open_store(f"s3://bucket-{uuid.uuid4().hex[:12]}/{prefix}")
    assert isinstance(store, S3Store)
    assert store.create_bucket()
    assert not store.create_bucket()
    return store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "folder":
        return open_store(request.getfixturevalue("folder_uri"))
    request.getfixturevalue("s3_environment")
    return new_s3_store()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, 100_000], ids=["empty", "one-byte", "large"])
def test_a_file_comes_back_as_it_went(store: Store, tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    sha256 = store.put_file(write(tmp_path / "in", data), "a/b.bin")
    assert sha256 == hashlib.sha256(data).hexdigest()
    store.get_file("a/b.bin", tmp_path / "new folder" / "out", sha256=sha256)
    assert (tmp_path / "new folder" / "out").read_bytes() == data
    assert store.get_bytes("a/b.bin") == data


def test_a_file_of_several_parts_comes_back_as_it_went(store: Store, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(PART_BYTES * 2 + 12345)
    sha256 = store.put_file(write(tmp_path / "in", data), "large.bin")
    store.get_file("large.bin", tmp_path / "out", sha256=sha256)
    assert (
        store.read_range("large.bin", PART_BYTES - 5, 10) == data[PART_BYTES - 5 : PART_BYTES + 5]
    )


def test_a_write_replaces(store: Store) -> None:
    store.put_bytes(b"one", "k")
    store.put_bytes(b"two", "k")
    assert store.get_bytes("k") == b"two"


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, 3, b"012"), (4, 2, b"45"), (8, 10, b"89"), (10, 5, b""), (3, 0, b"")],
    ids=["head", "middle", "past-the-end", "at-the-end", "nothing"],
)
def test_ranges(store: Store, offset: int, size: int, expected: bytes) -> None:
    store.put_bytes(b"0123456789", "digits")
    assert store.read_range("digits", offset, size) == expected


def test_a_listing_is_ordered_and_keeps_to_its_prefix(store: Store) -> None:
    for key in ("b/2", "b/10", "a/1", "ba", "c"):
        store.put_bytes(key.encode(), key)
    assert [(entry.key, entry.size_bytes) for entry in store.list("b")] == [
        ("b/10", 4),
        ("b/2", 3),
        ("ba", 2),
    ]
    assert [entry.key for entry in store.list()] == ["a/1", "b/10", "b/2", "ba", "c"]
    assert list(store.list("nothing/")) == []


def test_deleting_is_idempotent(store: Store) -> None:
    store.put_bytes(b"x", "k")
    assert store.exists("k")
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")


@pytest.mark.parametrize(
    "read",
    [
        lambda store, path: store.get_bytes("no/such"),
        lambda store, path: store.get_file("no/such", path),
        lambda store, path: store.read_range("no/such", 0, 1),
    ],
    ids=["bytes", "file", "range"],
)
def test_reading_what_is_not_there_says_so(
    store: Store, tmp_path: Path, read: Callable[[Store, Path], object]
) -> None:
    with pytest.raises(MissingInputError, match="no/such: not in the store"):
        read(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_of_many_racers_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda i: store.put_if_absent(str(i).encode(), "lock"), range(16)))
    assert sum(wins) == 1
    assert store.get_bytes("lock") == str(wins.index(True)).encode()
    assert not store.put_if_absent(b"late", "lock")


def test_an_object_is_named_by_its_content_and_sent_once(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "w", b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert put_object(store, path) == put_object(store, path) == object_key(sha256)
    assert [entry.key for entry in store.list()] == [f"objects/sha256/{sha256[:2]}/{sha256}"]


def test_tampered_objects_are_refused_and_found(store: Store, tmp_path: Path) -> None:
    key = put_object(store, write(tmp_path / "w", b"weights"))
    good = put_object(store, write(tmp_path / "v", b"other"))
    store.put_bytes(b"wEights", key)
    with pytest.raises(IntegrityError, match="sha256 is"):
        store.get_file(key, tmp_path / "out")
    with pytest.raises(IntegrityError):
        store.get_bytes(key)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob("out*")) == []
    report = verify_objects(store)
    assert report.num_objects == 2
    assert report.damaged == (key,)
    assert good not in report.damaged


def test_a_wrong_hash_leaves_the_old_file(store: Store, tmp_path: Path) -> None:
    store.put_bytes(b"new", "k")
    out = write(tmp_path / "out", b"old")
    with pytest.raises(IntegrityError):
        store.get_file("k", out, sha256="0" * 64)
    assert out.read_bytes() == b"old"


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/./b", "a/"])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="is no key"):
        store.put_bytes(b"x", key)


def test_two_prefixes_of_a_bucket_are_two_stores(s3_environment: dict[str, str]) -> None:
    store = new_s3_store("one")
    store.put_bytes(b"1", "k")
    other = open_store(store.uri.replace("/one", "/two"))
    assert not other.exists("k")
    assert [entry.key for entry in open_store(store.uri.removesuffix("/one")).list()] == ["one/k"]


def test_a_missing_bucket_is_named(s3_environment: dict[str, str]) -> None:
    with pytest.raises(StoreError, match="nowhere/k: cannot get: the server says NoSuchBucket"):
        open_store("s3://nowhere").get_bytes("k")


def test_wrong_credentials_are_refused_and_not_told(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_s3_store()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "PLANTEDKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plantedsecret")
    with pytest.raises(StoreError) as caught:
        open_store(store.uri).put_bytes(b"x", "k")
    assert "PLANTEDKEY" not in str(caught.value)
    assert "plantedsecret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://", "gs://bucket", "file://host/path", "http://x/y"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="store is"):
        open_store(uri)
