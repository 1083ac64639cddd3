"""Mutated files: whatever the bytes, ingest ends, and every file has its record."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from svd.config.engine import EngineConfig
from svd.config.ingest import FolderSource, IngestConfig
from svd.curation.ingest.stage import ingest
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.video import RawVideo, RejectedFile

NUM_MUTANTS = 260
# Fields that say how large, long or many something is, in the containers that are mutated.
TENDER_SPOTS = (
    b"ftyp", b"moov", b"mvhd", b"tkhd", b"mdhd", b"stsd", b"avc1", b"avcC", b"stts", b"ctts",
    b"stss", b"stsz", b"stsc", b"stco", b"elst", b"mdat", b"avih", b"strh", b"strf", b"idx1",
    b"\x1aE\xdf\xa3", b"\x16T\xaek", b"\xb0\x82", b"\xba\x82",
)  # fmt: skip
ABSURD = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\x00\x40\x00")

Mutation = Callable[[bytes, np.random.Generator], bytes]


def flip_bits(data: bytes, generator: np.random.Generator) -> bytes:
    mutant = bytearray(data)
    for position in generator.integers(0, len(data), int(generator.integers(1, 60))):
        mutant[position] ^= 1 << int(generator.integers(8))
    return bytes(mutant)


def truncate(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: int(generator.integers(0, len(data)))]


def absurd_header(data: bytes, generator: np.random.Generator) -> bytes:
    mutant = bytearray(data)
    present = [spot for spot in TENDER_SPOTS if spot in data] or [data[:4]]
    for _ in range(int(generator.integers(1, 4))):
        spot = present[int(generator.integers(len(present)))]
        position = data.index(spot) + int(generator.integers(-4, 40))
        position = min(max(0, position), len(data) - 4)
        mutant[position : position + 4] = ABSURD[int(generator.integers(len(ABSURD)))]
    return bytes(mutant)


def overwrite(data: bytes, generator: np.random.Generator) -> bytes:
    start = int(generator.integers(0, len(data)))
    length = int(generator.integers(1, 400))
    noise = generator.integers(0, 256, length, np.uint8).tobytes()
    return data[:start] + noise + data[start + length :]


def splice(data: bytes, generator: np.random.Generator) -> bytes:
    start, stop = sorted(int(n) for n in generator.integers(0, len(data), 2))
    return data[:stop] + data[start:]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, truncate, absurd_header, overwrite, splice)
SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".txt", "", ".jpg", ".ts", ".m3u8", ".h264")


@pytest.fixture
def originals(media) -> list[bytes]:
    paths = [
        media.video("a.mp4", num_frames=8),
        media.timed("b.mp4", range(0, 320, 40), with_audio=True),  # its index comes last
        media.video("c.webm", num_frames=8),
        media.video("d.mkv", num_frames=8),
        media.timed("e.avi", range(8), codec="mpeg4"),
        media.timed("f.ts", range(0, 320, 40)),
    ]
    return [path.read_bytes() for path in paths]


@pytest.mark.faults
def test_every_mutant_has_a_record_and_none_stops_the_others(
    originals: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "mutants"
    folder.mkdir()
    generator = np.random.default_rng(2311_15127)
    for number in range(NUM_MUTANTS):
        data = originals[number % len(originals)]
        mutant = MUTATIONS[number % len(MUTATIONS)](data, generator)
        suffix = SUFFIXES[int(generator.integers(len(SUFFIXES)))]
        (folder / f"{number:03d}{suffix}").write_bytes(mutant)
    (folder / "sane.mp4").write_bytes(originals[0])

    workspace = Workspace(tmp_path)
    config = IngestConfig(
        sources=(FolderSource(kind="folder", path="mutants", licence="x"),),
    )
    engine = EngineConfig(num_workers=2, timeout_s=30.0, memory_mib=1024)
    ingest(config, engine, workspace, workspace.runs / "fp", seed=0, tracker=NullTracker())

    kept = list(read_records(workspace.raw / "index.jsonl", RawVideo))
    refused = list(read_records(workspace.raw / "rejected.jsonl", RejectedFile))
    assert len(kept) + len(refused) == NUM_MUTANTS + 1
    assert sum(item.reason == "exact-duplicate" for item in refused) < NUM_MUTANTS // 4
    assert not [item for item in refused if item.reason in {"timeout", "crashed"}]
    assert all(item.detail for item in refused)
    # A file that is refused costs no other: the sane one and harmless mutations are there.
    assert any(item.origin == "mutants/sane.mp4" for item in [*kept, *refused])
    assert len(kept) >= 20
    for video in kept:
        assert 64 <= min(video.probe.width, video.probe.height) <= 8192
        assert video.probe.duration_s < 43_200
