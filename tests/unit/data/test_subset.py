"""A subset is the same examples in other shards."""

from pathlib import Path

import torch

from svd.config.data import StreamConfig
from svd.data.stream.shards import load_manifest
from svd.data.stream.stream import OrderedBatches
from svd.data.stream.subset import write_subset
from svd.runtime.storage import open_store
from tests.unit.training.world import HEIGHT, NUM_FRAMES, WIDTH, make_world

STREAM = StreamConfig(height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES, batch_size=1)


def test_a_subset_holds_the_wanted_clips_bit_for_bit_and_the_same_motion_table(
    tmp_path: Path,
) -> None:
    store = open_store(str(make_world(tmp_path).latents))
    wanted = {"train": {"clip001", "clip004", "clip009"}, "heldout": {"clip010"}}
    subset = write_subset(store, wanted, tmp_path / "subset")
    whole = load_manifest(store)
    assert subset.motion_table == whole.motion_table
    assert subset.latent_scale == whole.latent_scale
    part = open_store(str(tmp_path / "subset"))
    for split, expected in (("train", {"clip001", "clip004"}), ("heldout", {"clip010"})):
        batches = {
            b.clip_ids[0]: b for b in OrderedBatches(subset, STREAM, source=part, split=split)
        }
        assert set(batches) == expected  # clip009 is held out
        for original in OrderedBatches(whole, STREAM, source=store, split=split):
            copy = batches.get(original.clip_ids[0])
            assert copy is None or torch.equal(copy.mean, original.mean)
            assert copy is None or torch.equal(copy.cond_frame, original.cond_frame)


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    store = open_store(str(make_world(tmp_path).latents))
    first = write_subset(store, {"train": {"clip001"}}, tmp_path / "one")
    assert write_subset(store, {"train": {"clip002"}}, tmp_path / "one") == first
    assert write_subset(store, {"train": {"clip001"}}, tmp_path / "two") == first
