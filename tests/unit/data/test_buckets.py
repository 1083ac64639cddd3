"""Clips of several shapes: each at its nearest size, in batches that take turns."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from latent_datasets import BLOCK, HEIGHT, WIDTH, build_config, make_clip, write_dataset

from svd.config.data import EncodedSize
from svd.data.stream.buckets import BatchTurns, pick_sizes
from svd.data.stream.examples import pack
from svd.data.stream.shards import save_shard
from svd.data.stream.stream import stream_batches
from svd.runtime.storage import open_store
from svd.types.shard import ShardManifest, StreamPosition

TALL = (32, 16)  # height and width


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 8), st.integers(0, 9))
def test_every_bucket_goes_through_its_own_order_without_gap_or_repetition(
    counts: list[int], batch_size: int, seed: int
) -> None:
    turns = BatchTurns(counts, batch_size=batch_size, seed=seed)
    per_round = sum(max(1, round(count / batch_size)) for count in counts)
    seen: dict[int, list[int]] = {}
    for batch in range(3 * per_round):
        bucket, start = turns.locate(batch * batch_size)
        seen.setdefault(bucket, []).append(start)
    assert seen.keys() == set(range(len(counts)))
    for starts in seen.values():
        assert sorted(starts) == [batch_size * i for i in range(len(starts))]


def test_turns_are_in_proportion_and_mixed() -> None:
    turns = BatchTurns([600, 300, 100], batch_size=10, seed=0)
    buckets = [turns.locate(10 * i).bucket for i in range(100)]
    assert Counter(buckets) == {0: 60, 1: 30, 2: 10}
    assert len(set(buckets[:12])) > 1
    assert max(np.diff([i for i, bucket in enumerate(buckets) if bucket == 1])) < 20


def test_a_clip_takes_the_nearest_of_the_sizes_that_share_a_bucket() -> None:
    sizes = [
        EncodedSize(height=64, width=128),
        EncodedSize(height=320, width=576, bucket="low"),
        EncodedSize(height=448, width=448, bucket="low"),
        EncodedSize(height=576, width=320, bucket="low"),
    ]
    assert pick_sizes(sizes, width=1920, height=1080) == (0, 1)
    assert pick_sizes(sizes, width=640, height=480) == (0, 2)
    assert pick_sizes(sizes, width=720, height=1280) == (0, 3)


def write_two_shapes(folder: Path) -> ShardManifest:
    manifest = write_dataset(folder, [7] * 9)
    tall = [pack(make_clip(100 + i, 7), block_frames=BLOCK) for i in range(6)]
    shard = save_shard(folder, tall, split="train", height=TALL[0], width=TALL[1])
    return manifest.model_copy(update={"shards": (*manifest.shards, shard)})


def test_a_stream_of_two_shapes_is_the_same_on_any_ranks_and_loses_no_clip(tmp_path: Path) -> None:
    manifest = write_two_shapes(tmp_path)
    config = build_config(buckets=[{"height": TALL[0], "width": TALL[1]}], batch_size=2)
    assert [(size.height, size.width) for size in config.sizes] == [(HEIGHT, WIDTH), TALL]

    def draw(start: int, rank: int, world_size: int) -> list[tuple[str, ...]]:
        batches = stream_batches(
            manifest,
            config,
            StreamPosition(examples_drawn=start),
            source=open_store(str(tmp_path)),
            seed=5,
            rank=rank,
            world_size=world_size,
        )
        return [batch.clip_ids for batch, _ in islice(batches, 40)]

    whole = draw(0, 0, 1)
    for clips in whole:  # a batch is of one shape
        assert len({clip >= "clip100" for clip in clips}) == 1
    halves = zip(draw(20, 0, 2), draw(20, 1, 2), strict=True)
    assert [(*a, *b) for a, b in halves][:30] == whole[10:]
    for is_tall, num_clips in ((False, 9), (True, 6)):
        drawn = [clip for clips in whole for clip in clips if (clip >= "clip100") == is_tall]
        counts = Counter(drawn[: num_clips * (len(drawn) // num_clips)])
        assert len(counts) == num_clips
