"""The S3 store behind a network that fails: nothing is lost, doubled or half there."""

import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from svd.errors import StoreError
from svd.runtime import storage_s3
from svd.runtime.storage import open_store, put_object, verify_objects
from svd.runtime.storage_s3 import S3Store
from tests.contract.faulty_proxy import FaultyProxy

pytestmark = pytest.mark.faults


@pytest.fixture
def proxy(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that fails one request in twenty; AWS clients are pointed at it."""
    with FaultyProxy(s3_environment["AWS_ENDPOINT_URL"], probability=0.05, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy) -> S3Store:
    store = open_store(f"s3://faults-{uuid.uuid4().hex[:12]}")
    assert isinstance(store, S3Store)
    store.create_bucket()
    return store


def test_with_one_request_in_twenty_failing_all_objects_come_back(
    store: S3Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    sizes = np.random.default_rng(0).integers(0, 20_000, 120)

    def round_trip(index: int) -> str:
        data = np.random.default_rng(index).bytes(int(sizes[index]))
        path = tmp_path / f"{index}"
        path.write_bytes(data)
        key = put_object(store, path)
        store.get_file(key, tmp_path / f"{index}.out")
        assert (tmp_path / f"{index}.out").read_bytes() == data
        middle = len(data) // 2
        assert store.read_range(key, middle, 100) == data[middle : middle + 100]
        return key

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(round_trip, range(120)))
    assert {stored.key for stored in store.list()} == keys
    assert verify_objects(store).damaged == ()
    assert sum(proxy.faults.values()) >= 15
    assert len(proxy.faults) == 3


def test_a_file_of_many_parts_survives(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_s3, "PART_BYTES", 5 << 20)  # the smallest part S3 takes
    small_parts = S3Store(bucket=store.uri.removeprefix("s3://"), prefix="")
    data = np.random.default_rng(0).bytes(52 << 20)
    (tmp_path / "in").write_bytes(data)
    sha256 = small_parts.put_file(tmp_path / "in", "large")
    assert sha256 == hashlib.sha256(data).hexdigest()
    small_parts.get_file("large", tmp_path / "out", sha256=sha256)
    assert (tmp_path / "out").read_bytes() == data


def test_of_many_racers_one_wins_even_if_its_answer_is_lost(store: S3Store) -> None:
    for race in range(12):
        key = f"lock-{race}"

        def attempt(index: int, key: str = key) -> bool:
            return store.put_if_absent(str(index).encode(), key)

        with ThreadPoolExecutor(6) as pool:
            wins = list(pool.map(attempt, range(6)))
        assert sum(wins) == 1
        assert store.get_bytes(key) == str(wins.index(True)).encode()


def test_a_server_that_is_gone_is_an_error_of_the_store(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    client = storage_s3.s3_client(attempts=2)
    monkeypatch.setattr(storage_s3, "s3_client", lambda: client)
    with pytest.raises(
        StoreError, match=r"cannot get at http://127\.0\.0\.1:1: EndpointConnection"
    ):
        open_store("s3://bucket").get_bytes("k")
