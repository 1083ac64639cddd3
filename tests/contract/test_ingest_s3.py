"""Ingest from a real S3 server, behind a network that fails."""

import uuid
from pathlib import Path

import numpy as np
import pytest

from svd.config.engine import EngineConfig
from svd.config.ingest import IngestConfig, ListSource, S3Source
from svd.curation.ingest.stage import ingest
from svd.media.encode import write_video
from svd.runtime.storage import open_store
from svd.runtime.storage_s3 import S3Store, s3_client
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.video import RawVideo, RejectedFile
from tests.contract.faulty_proxy import FaultyProxy

NUM_GOOD, NUM_BAD = 24, 6


@pytest.fixture
def prefix(s3_environment: dict[str, str], tmp_path: Path) -> str:
    """A prefix with good videos, one of them twice, and files that are none."""
    bucket = f"s3://ingest-{uuid.uuid4().hex[:12]}"
    store = open_store(bucket)
    assert isinstance(store, S3Store)
    store.create_bucket()
    for index in range(NUM_GOOD):
        frames = np.random.default_rng(index).integers(0, 256, (4, 64, 64, 3), np.uint8)
        path = tmp_path / "v.mp4"
        write_video(path, frames, 24)
        store.put_file(path, f"films/{index:02d}.mp4")
    store.put_file(path, "films/again.mp4")
    for index in range(NUM_BAD):
        store.put_bytes(b"text" * index, f"films/bad/{index}.mp4")
    # What some tools leave behind for a folder.
    s3_client().put_object(Bucket=bucket.removeprefix("s3://"), Key="films/", Body=b"")
    store.put_bytes(b"not below the prefix", "other/x.mp4")
    return f"{bucket}/films"


def take_in(workspace: Workspace, *sources: object) -> None:
    config, engine = IngestConfig(sources=sources), EngineConfig(num_workers=2)
    ingest(config, engine, workspace, workspace.runs / "x", seed=0, tracker=NullTracker())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.faults
def test_a_prefix_gives_the_same_through_a_network_that_fails(
    prefix: str,
    s3_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = S3Source(kind="s3", uri=prefix, licence="CC0-1.0")
    calm, rough = Workspace(tmp_path / "calm"), Workspace(tmp_path / "rough")
    take_in(calm, source)
    with FaultyProxy(s3_environment["AWS_ENDPOINT_URL"], probability=0.05, seed=5) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        take_in(rough, source)
        assert sum(proxy.faults.values()) > 0
    assert contents(rough.raw) == contents(calm.raw)

    videos = list(read_records(calm.raw / "index.jsonl", RawVideo))
    refused = list(read_records(calm.raw / "rejected.jsonl", RejectedFile))
    assert [video.origin for video in videos] == [
        f"{prefix}/{index:02d}.mp4" for index in range(NUM_GOOD)
    ]
    assert sorted(item.reason for item in refused) == [
        "empty-file",
        "exact-duplicate",
        *["not-a-video"] * (NUM_BAD - 1),
    ]


def test_objects_are_named_one_by_one_in_a_list(prefix: str, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"{prefix}/00.mp4\n{prefix}/absent.mp4\n")
    workspace = Workspace(tmp_path / "ws")
    take_in(workspace, ListSource(kind="list", path=str(listing), licence="x"))
    (video,) = read_records(workspace.raw / "index.jsonl", RawVideo)
    (item,) = read_records(workspace.raw / "rejected.jsonl", RejectedFile)
    assert video.origin == f"{prefix}/00.mp4"
    assert (item.origin, item.reason) == (f"{prefix}/absent.mp4", "not-fetched")
