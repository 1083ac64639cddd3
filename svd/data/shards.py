"""Tar shards: members in, deterministic bytes and an index out; and verified reads back."""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from svd.errors import IntegrityError
from svd.types.shard import ExampleEntry, MemberEntry, ShardIndex, ShardInfo

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


def write_shard(path: Path, examples: Sequence[PackedExample]) -> tuple[str, ShardIndex]:
    """Write a tar that plain webdataset reads; equal examples give equal bytes.

    Args:
        path: Where the tar goes; the folder exists.
        examples: Written with the longest first, equally long ones by key.

    Returns:
        The sha256 of the tar, and its index.
    """
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
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, ShardIndex(examples=tuple(entries))


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
