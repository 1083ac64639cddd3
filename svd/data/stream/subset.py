"""A data set of some clips of another one, shard by shard, without encoding anything anew."""

from collections.abc import Mapping, Set
from pathlib import Path

from svd.atomic import write_text
from svd.data.stream.shards import (
    MANIFEST,
    ByteSource,
    PackedExample,
    load_manifest,
    read_index,
    read_members,
    save_shard,
)
from svd.types.annotation import SplitName
from svd.types.shard import ShardInfo, ShardManifest


def write_subset(
    source: ByteSource, wanted: Mapping[SplitName, Set[str]], folder: Path
) -> ShardManifest:
    """Copy some clips into a folder; what is there already is left.

    Each shard that holds a wanted clip gives one shard, so one shard is in memory at a time. The
    motion table and all else that the manifest says stay those of the whole data set, so that a
    motion bucket means the same.

    Args:
        source: Where the whole data set lies.
        wanted: clip_ids, by split; others and other splits are left out.
        folder: Gets shards/ and manifest.json, the manifest last.

    Raises:
        IntegrityError: Stored bytes are not those that the manifest names.
    """
    done = folder / MANIFEST
    if done.is_file():
        return ShardManifest.parse(done.read_text(encoding="utf-8"), origin=str(done))
    manifest = load_manifest(source)
    copies = (
        _copy(source, shard, wanted.get(shard.split, frozenset()), folder)
        for shard in manifest.shards
    )
    subset = manifest.model_copy(update={"shards": tuple(filter(None, copies)), "dropped": ()})
    write_text(done, subset.canonical_json())
    return subset


def _copy(source: ByteSource, shard: ShardInfo, wanted: Set[str], folder: Path) -> ShardInfo | None:
    """Return the shard of a shard's wanted clips; None if it holds none of them."""
    chosen = [entry for entry in read_index(source, shard).examples if entry.key in wanted]
    if not chosen:
        return None
    packed = []
    for entry in chosen:
        found = read_members(source, shard, entry, entry.members)
        members = {extension: found[extension] for extension in entry.members}
        packed.append(PackedExample(entry.key, entry.num_frames, members))
    return save_shard(
        folder,
        packed,
        split=shard.split,
        height=shard.height,
        width=shard.width,
        tier=shard.tier,
    )
