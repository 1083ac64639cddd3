"""Tar shards: members in, deterministic bytes and an index out; and verified reads back."""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from svd.atomic import write_text
from svd.errors import IntegrityError
from svd.runtime.fingerprint import file_sha256
from svd.types.annotation import SplitName, Tier
from svd.types.shard import (
    ExampleEntry,
    LengthCount,
    MemberEntry,
    ShardIndex,
    ShardInfo,
    ShardManifest,
)

MANIFEST = "manifest.json"

# Two wanted members this close are fetched in one read: on S3 a request costs about 5 ms, in which
# a link of 100 MB/s would move 500 kB.
MERGE_GAP_BYTES = 256 * 1024


@runtime_checkable
class ByteSource(Protocol):
    """What reading shards asks of a store; `svd.runtime.storage.open_store` returns one.

    Both raise MissingInputError where there is no such object, and StoreError where the store
    fails after its retries.
    """

    def get_bytes(self, key: str) -> bytes:
        """Return an object's bytes."""

    def read_range(self, key: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only where the object ends."""


class PackedExample(NamedTuple):
    """An example ready to be written: its members as bytes."""

    key: str
    num_frames: int
    members: Mapping[str, bytes]  # extension -> content, in the order they are to be read


def save_shard(
    folder: Path,
    examples: Sequence[PackedExample],
    *,
    split: SplitName,
    height: int,
    width: int,
    tier: Tier = "base",
) -> ShardInfo:
    """Write a tar that plain webdataset reads, and its index, named by the tar's content.

    Equal examples give equal bytes. A file gets its name only when it is complete.

    Args:
        folder: Where manifest.json will lie; the files go to shards/ below it.
        examples: At least one; written with the longest first, equally long ones by key.
        split: Which split they belong to.
        height: Of their pictures, pixels.
        width: Likewise.
        tier: Of their clips.
    """
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    # The first key makes the name unique among processes that write into one folder.
    partial = folder / "shards" / f"{min(e.key for e in examples)}-{height}x{width}.tar.partial"
    index = _write_tar(partial, examples)
    sha256 = file_sha256(partial)
    content = index.canonical_json()
    info = ShardInfo(
        uri=f"shards/{sha256}.tar",
        sha256=sha256,
        size_bytes=partial.stat().st_size,
        index_uri=f"shards/{sha256}.index.json",
        index_sha256=hashlib.sha256(content.encode()).hexdigest(),
        split=split,
        tier=tier,
        height=height,
        width=width,
        lengths=_count_lengths(index),
    )
    write_text(folder / info.index_uri, content)
    partial.replace(folder / info.uri)
    return info


def _write_tar(path: Path, examples: Sequence[PackedExample]) -> ShardIndex:
    ordered = sorted(examples, key=lambda example: (-example.num_frames, example.key))
    entries, offset = [], 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for example in ordered:
            places = {}
            for extension, content in example.members.items():
                # Everything else of the header is left at its default: mtime, owner, mode are
                # constants, so the bytes depend on nothing but names and contents.
                header = tarfile.TarInfo(f"{example.key}.{extension}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
                places[extension] = MemberEntry(
                    offset=offset + tarfile.BLOCKSIZE,
                    size=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                )
                num_blocks = 1 + -(-len(content) // tarfile.BLOCKSIZE)
                offset += num_blocks * tarfile.BLOCKSIZE
            entries.append(
                ExampleEntry(key=example.key, num_frames=example.num_frames, members=places)
            )
    return ShardIndex(examples=tuple(entries))


def _count_lengths(index: ShardIndex) -> tuple[LengthCount, ...]:
    counts = Counter(entry.num_frames for entry in index.examples)
    return tuple(
        LengthCount(num_frames=length, num_examples=counts[length])
        for length in sorted(counts, reverse=True)
    )


def load_manifest(source: ByteSource) -> ShardManifest:
    """Read the manifest of the data set that lies in a folder or below a prefix.

    Raises:
        MissingInputError: There is none.
        IntegrityError: It is not a manifest.
        StoreError: The store failed.
    """
    return ShardManifest.parse(source.get_bytes(MANIFEST).decode(), origin=MANIFEST)


def read_index(source: ByteSource, shard: ShardInfo) -> ShardIndex:
    """Read the index of a shard and check its hash.

    Raises:
        MissingInputError: It is not there.
        IntegrityError: It is not what the manifest says.
        StoreError: The store failed.
    """
    content = source.get_bytes(shard.index_uri)
    _check(content, shard.index_sha256, shard.index_uri)
    return ShardIndex.parse(content.decode(), origin=shard.index_uri)


def read_members(
    source: ByteSource, shard: ShardInfo, entry: ExampleEntry, extensions: Iterable[str]
) -> dict[str, bytes]:
    """Read some members of an example, few requests for many members, and check their hashes.

    Raises:
        MissingInputError: The shard is not there.
        IntegrityError: A member is unknown, cut off, or its bytes are not those of the index.
        StoreError: The store failed.
    """
    wanted = {}
    for extension in extensions:
        if extension not in entry.members:
            raise IntegrityError(f"{shard.uri}: example {entry.key} has no member {extension}")
        wanted[extension] = entry.members[extension]
    contents = {}
    for run in _runs(wanted):
        start = run[0][1].offset
        stop = run[-1][1].offset + run[-1][1].size
        block = source.read_range(shard.uri, start, stop - start)
        for extension, place in run:
            content = block[place.offset - start : place.offset - start + place.size]
            _check(content, place.sha256, f"{shard.uri}: {entry.key}.{extension}")
            contents[extension] = content
    return contents


def _runs(wanted: Mapping[str, MemberEntry]) -> Iterator[list[tuple[str, MemberEntry]]]:
    """Group members that lie close together, in the order of their offsets."""
    run: list[tuple[str, MemberEntry]] = []
    for item in sorted(wanted.items(), key=lambda item: item[1].offset):
        if run and item[1].offset - (run[-1][1].offset + run[-1][1].size) > MERGE_GAP_BYTES:
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _check(content: bytes, sha256: str, place: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise IntegrityError(
            f"{place}: {len(content)} bytes hash to {found[:12]}.., not {sha256[:12]}.. as recorded"
        )
