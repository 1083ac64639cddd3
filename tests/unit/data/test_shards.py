import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from latent_datasets import BLOCK, make_clip, write_dataset

from svd.data.stream.examples import pack, read_window
from svd.data.stream.shards import load_manifest, read_index, read_members, save_shard
from svd.errors import IntegrityError, MissingInputError
from svd.runtime.fingerprint import file_sha256
from svd.runtime.storage import open_store


def test_equal_examples_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    examples = [pack(make_clip(i, 5 + i), block_frames=BLOCK) for i in range(3)]
    first = save_shard(tmp_path / "a", examples, split="train", height=16, width=32)
    second = save_shard(tmp_path / "b", examples[::-1], split="train", height=16, width=32)
    assert first == second
    assert (tmp_path / "a" / first.uri).read_bytes() == (tmp_path / "b" / second.uri).read_bytes()


def test_shard_is_named_by_its_content_and_leaves_no_partial_file(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [5, 6])
    (shard,) = manifest.shards
    assert shard.uri == f"shards/{file_sha256(tmp_path / shard.uri)}.tar"
    assert sorted(path.suffix for path in (tmp_path / "shards").iterdir()) == [".json", ".tar"]


def test_index_points_at_the_very_bytes_tarfile_finds(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [5, 9])
    (shard,) = manifest.shards
    index = read_index(open_store(str(tmp_path)), shard)
    ours = {
        f"{entry.key}.{extension}": (place.offset, place.size)
        for entry in index.examples
        for extension, place in entry.members.items()
    }
    with tarfile.open(tmp_path / shard.uri) as tar:
        assert {m.name: (m.offset_data, m.size) for m in tar.getmembers()} == ours


def test_long_examples_come_first_and_are_counted(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [5, 9, 7, 9])
    (shard,) = manifest.shards
    index = read_index(open_store(str(tmp_path)), shard)
    assert [entry.num_frames for entry in index.examples] == [9, 9, 7, 5]
    assert [shard.num_at_least(n) for n in (1, 6, 8, 10)] == [4, 3, 2, 0]
    assert (shard.num_examples, shard.num_frames) == (4, 30)


def test_plain_webdataset_reads_a_shard(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [9])
    url = str(tmp_path / manifest.shards[0].uri)
    (sample,) = webdataset.WebDataset(url, shardshuffle=False).decode("rgb8")
    clip = make_clip(0, 9)
    assert sample["__key__"] == "clip000"
    assert sample["json"]["captions"][0]["text"] == "measured 0"
    blocks = [sample[f"moments.{block:04d}.npy"] for block in range(3)]
    assert np.array_equal(np.concatenate(blocks), clip.moments.numpy().astype(np.float16))
    picture = sample["cond.0001.png"].transpose(2, 0, 1)
    assert np.array_equal(picture, clip.cond_frames[1].numpy())


@pytest.mark.parametrize(
    ("block", "frames"),
    [(0, range(6)), (1, range(4, 10)), (1, range(4, 13, 2)), (2, range(8, 9))],
    ids=["start", "second-block", "stride-2", "one-frame"],
)
def test_window_is_the_stretch_asked_for(tmp_path: Path, block: int, frames: range) -> None:
    manifest = write_dataset(tmp_path, [13, 13])
    (shard,) = manifest.shards
    source = open_store(str(tmp_path))
    entry = read_index(source, shard).examples[1]
    clip = make_clip(1, 13)
    window = read_window(source, shard, entry, block=block, frames=frames, block_frames=BLOCK)
    assert window.meta == clip.meta
    assert window.moments.equal(clip.moments[list(frames)])
    assert window.cond_frame.equal(clip.cond_frames[block])
    assert window.image_embed.equal(clip.image_embeds[block])


def test_one_flipped_bit_is_an_integrity_error_that_names_the_member(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [9])
    (shard,) = manifest.shards
    source = open_store(str(tmp_path))
    entry = read_index(source, shard).examples[0]
    place = entry.members["moments.0001.npy"]
    path = tmp_path / shard.uri
    content = bytearray(path.read_bytes())
    content[place.offset + place.size - 1] ^= 1
    path.write_bytes(content)
    assert read_members(source, shard, entry, ["moments.0000.npy"])
    with pytest.raises(IntegrityError, match=r"clip000\.moments\.0001\.npy"):
        read_members(source, shard, entry, ["moments.0001.npy"])


def test_truncated_shard_missing_shard_and_foreign_index_are_told_apart(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [9])
    (shard,) = manifest.shards
    source = open_store(str(tmp_path))
    entry = read_index(source, shard).examples[0]
    path = tmp_path / shard.uri
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(IntegrityError, match=r"hash to"):
        read_members(source, shard, entry, ["moments.0001.npy"])
    path.unlink()
    with pytest.raises(MissingInputError):
        read_members(source, shard, entry, ["json"])
    (tmp_path / shard.index_uri).write_text("{}")
    with pytest.raises(IntegrityError, match=r"index\.json"):
        read_index(source, shard)


def test_manifest_survives_its_file(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [9])
    loaded = load_manifest(open_store(str(tmp_path)))
    assert loaded == manifest
    assert loaded.content_hash() == manifest.content_hash()
