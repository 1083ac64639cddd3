from collections import Counter
from itertools import count, islice
from pathlib import Path

import pytest
import torch
from latent_datasets import BLOCK, build_config, make_clip, write_dataset

from svd.config.data import StreamConfig
from svd.data.stream.examples import pack
from svd.data.stream.quarantine import (
    Quarantine,
    QuarantinedExample,
    quarantine_limit,
    read_quarantine,
)
from svd.data.stream.shards import read_index, save_shard
from svd.data.stream.stream import OrderedBatches, stream_batches
from svd.errors import ConfigError, IntegrityError, StoreError
from svd.runtime.storage import open_store
from svd.types.batch import LatentBatch
from svd.types.shard import ShardManifest, StreamPosition

START = StreamPosition()


def draw(
    folder: Path,
    manifest: ShardManifest,
    config: StreamConfig,
    num_batches: int,
    *,
    start: StreamPosition = START,
    **where: object,
) -> list[tuple[LatentBatch, StreamPosition]]:
    source = open_store(str(folder))
    batches = stream_batches(
        manifest,
        config,
        start,
        source=source,
        **({"seed": 7} | where),  # type: ignore[arg-type]
    )
    return list(islice(batches, num_batches))


def facts(batch: LatentBatch) -> list[tuple[object, ...]]:
    return list(
        zip(batch.positions, batch.clip_ids, batch.start_frames, batch.captions, strict=True)
    )


def same(a: LatentBatch, b: LatentBatch) -> bool:
    return (
        facts(a) == facts(b)
        and a.mean.equal(b.mean)
        and a.logvar.equal(b.logvar)
        and a.cond_frame.equal(b.cond_frame)
        and a.image_embeds.equal(b.image_embeds)
        and a.fps.equal(b.fps)
        and a.motion_bucket_id.equal(b.motion_bucket_id)
    )


def test_windows_hold_what_the_clip_holds_there(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [13, 20, 9])
    for batch, _ in draw(tmp_path, manifest, build_config(), 5):
        assert batch.mean.shape == (4, 6, 4, 2, 4)
        for i, (clip_id, start) in enumerate(zip(batch.clip_ids, batch.start_frames, strict=True)):
            number = int(clip_id.removeprefix("clip"))
            clip = make_clip(number, [13, 20, 9][number])
            assert batch.mean[i].equal(clip.moments[start : start + 6, 0])
            assert batch.logvar[i].equal(clip.moments[start : start + 6, 1])
            assert batch.cond_frame[i].equal(clip.cond_frames[start // BLOCK])
            assert batch.image_embeds[i, 0].equal(clip.image_embeds[start // BLOCK])
            assert int(batch.motion_bucket_id[i]) == number


def test_an_epoch_draws_every_long_enough_clip_once(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [6, 5, 7, 8, 3, 9, 10, 6, 6, 12])  # eight are >= 6
    batches = draw(tmp_path, manifest, build_config(), 6)
    drawn = [clip for batch, _ in batches for clip in batch.clip_ids]
    for epoch in range(3):
        counts = Counter(drawn[8 * epoch : 8 * epoch + 8])
        assert set(counts.values()) == {1}
        assert not {"clip001", "clip004"} & set(counts)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_what_one_rank_sees(tmp_path: Path, world_size: int) -> None:
    manifest = write_dataset(tmp_path, [7 + i for i in range(9)])
    config = build_config(caption_weights={"measured": 1.0, "image-model": 1.0})
    alone = draw(tmp_path, manifest, config, 6)
    ranks = [
        draw(tmp_path, manifest, config, 6, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for step, (whole, position) in enumerate(alone):
        parts = [rank[step][0] for rank in ranks]
        assert [fact for part in parts for fact in facts(part)] == facts(whole)
        assert torch.cat([part.mean for part in parts]).equal(whole.mean)
        assert {rank[step][1] for rank in ranks} == {position}


def test_resume_on_other_ranks_and_threads_continues_the_stream(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path, [7 + i for i in range(9)])
    unbroken = draw(tmp_path, manifest, build_config(), 8)
    position = unbroken[4][1]
    config = build_config(read_threads=1, prefetch_batches=1)
    for rank in range(2):
        resumed = draw(tmp_path, manifest, config, 3, start=position, rank=rank, world_size=2)
        for (whole, after), (half, half_after) in zip(unbroken[5:], resumed, strict=True):
            assert same(half, whole.part(2 * rank, 2 * rank + 2))
            assert after == half_after


def test_position_counts_global_examples(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7] * 5)
    positions = [after.examples_drawn for _, after in draw(tmp_path, manifest, build_config(), 3)]
    assert positions == [4, 8, 12]


def test_seed_changes_the_stream(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7 + i for i in range(9)])
    first = draw(tmp_path, manifest, build_config(), 3, seed=1)
    second = draw(tmp_path, manifest, build_config(), 3, seed=2)
    assert [facts(batch) for batch, _ in first] != [facts(batch) for batch, _ in second]


def test_all_start_blocks_are_drawn(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [18])  # windows of 6 fit at 0, 4, 8, 12
    batches = draw(tmp_path, manifest, build_config(), 25)
    counts = Counter(start for batch, _ in batches for start in batch.start_frames)
    assert set(counts) == {0, 4, 8, 12}
    assert min(counts.values()) > 10  # of 100 draws, 25 expected


def test_stride_lowers_fps_and_is_drawn_only_where_it_fits(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path, [6, 20])
    config = build_config(frame_strides=[1, 2])
    for batch, _ in draw(tmp_path, manifest, config, 10):
        for i, clip in enumerate(batch.clip_ids):
            steps = batch.logvar[i, :, 0, 0, 0].diff().unique()
            assert len(steps) == 1
            assert float(batch.fps[i]) == 8 / float(steps[0])
            assert clip != "clip000" or float(batch.fps[i]) == 8


def test_single_frames_make_an_image_batch(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [3, 4])
    ((batch, _),) = draw(tmp_path, manifest, build_config(num_frames=1), 1)
    assert batch.image_only
    assert batch.num_frames == 1


def test_mixed_stream_has_the_share_of_image_batches_asked_for(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path, [7] * 5)
    config = build_config(image_batch_fraction=0.3)
    batches = draw(tmp_path, manifest, config, 100)
    share = sum(batch.image_only for batch, _ in batches) / 100
    assert 0.18 < share < 0.42  # 2.6 standard deviations
    again = draw(tmp_path, manifest, config, 100, rank=1, world_size=2)
    assert [a.image_only for a, _ in again] == [b.image_only for b, _ in batches]


def test_captions_are_drawn_by_their_weights(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7] * 5)
    config = build_config(caption_weights={"measured": 1.0, "image-model": 3.0})
    texts = [c for batch, _ in draw(tmp_path, manifest, config, 100) for c in batch.captions]
    share = sum(text.startswith("image") for text in texts) / len(texts)
    assert abs(share - 0.75) < 0.06  # 2.8 standard deviations of 400 draws
    silent = build_config(caption_weights={"merged": 1.0})
    assert draw(tmp_path, manifest, silent, 1)[0][0].captions == ("",) * 4


def _damage(folder: Path, manifest: ShardManifest, clip_id: str) -> None:
    source = open_store(str(folder))
    for shard in manifest.shards:
        for entry in read_index(source, shard).examples:
            if entry.key == clip_id:
                path = folder / shard.uri
                content = bytearray(path.read_bytes())
                content[entry.members["json"].offset] ^= 0xFF
                path.write_bytes(content)


def test_damaged_example_is_set_aside_counted_and_replaced_alike_everywhere(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path, [7] * 12)
    before = draw(tmp_path, manifest, build_config(), 6)
    _damage(tmp_path, manifest, "clip003")
    quarantine = Quarantine(limit=5)
    after = draw(tmp_path, manifest, build_config(), 6, quarantine=quarantine)
    assert [record.clip_id for record in quarantine.records] == ["clip003"]
    assert quarantine.num_shards == 1
    for (whole, _), (found, _) in zip(before, after, strict=True):
        for i, clip in enumerate(whole.clip_ids):
            if clip == "clip003":
                assert found.clip_ids[i] != "clip003"
            else:
                assert found.clip_ids[i] == clip
                assert found.start_frames[i] == whole.start_frames[i]
    resumed = draw(tmp_path, manifest, build_config(), 3, start=after[2][1])
    assert all(same(a, b) for (a, _), (b, _) in zip(after[3:], resumed, strict=True))


def test_missing_shard_loses_its_examples_and_no_others(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path, [7] * 12)
    lost = {e.key for e in read_index(open_store(str(tmp_path)), manifest.shards[0]).examples}
    (tmp_path / manifest.shards[0].uri).unlink()
    quarantine = Quarantine(limit=5)
    batches = draw(tmp_path, manifest, build_config(), 6, quarantine=quarantine)
    drawn = {clip for batch, _ in batches for clip in batch.clip_ids}
    assert not drawn & lost
    assert {record.clip_id for record in quarantine.records} == lost


def test_too_many_damaged_examples_stop_the_stream(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7] * 12)
    for shard in manifest.shards[:2]:
        (tmp_path / shard.index_uri).unlink()
    with pytest.raises(IntegrityError, match="max_quarantined=3"):
        draw(tmp_path, manifest, build_config(max_quarantined=3), 6)


def test_earlier_attempts_and_other_ranks_count_towards_the_limit(tmp_path: Path) -> None:
    def bad(example: int) -> QuarantinedExample:
        return QuarantinedExample(shard_uri="a", example=example, clip_id=None, reason="torn")

    path = tmp_path / "rank-00000.jsonl"
    quarantine = Quarantine(limit=5, known=[bad(0), bad(1), bad(1)], keep_in=path)
    quarantine.add(bad(0))
    assert quarantine.records == ()
    quarantine.add(bad(2))
    assert list(read_quarantine([path])) == [bad(2)]
    assert not quarantine.may_exceed(3)
    assert quarantine.may_exceed(4)
    quarantine.check([bad(2), bad(3), bad(4), bad(3), bad(2)])  # two ranks have met the same
    with pytest.raises(IntegrityError, match=r"6 examples .*max_quarantined=5; the last: torn"):
        quarantine.check([bad(2), bad(3), bad(4), bad(5)])
    assert not Quarantine(limit=0, known=[bad(0)]).may_exceed(0)  # known data may be lived with


def test_a_large_data_set_may_lose_a_hundredth_and_a_small_one_a_hundred_examples(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path, [7] * 12, heldout=4)
    large = manifest.model_copy(update={"shards": manifest.shards * 10_000})
    assert quarantine_limit(build_config(), manifest) == 100
    assert quarantine_limit(build_config(), large) == 800  # of 80,000 training examples
    assert quarantine_limit(build_config(max_quarantined=3), large) == 3


def test_latents_that_are_not_finite_are_set_aside(tmp_path: Path) -> None:
    """They would end training at the same step whenever it is resumed."""
    clips = [make_clip(number, 7) for number in range(4)]
    clips[2].moments[1, 0, 0, 0, 0] = float("nan")
    shard = save_shard(
        tmp_path,
        [pack(clip, block_frames=BLOCK) for clip in clips],
        split="train",
        height=16,
        width=32,
    )
    manifest = write_dataset(tmp_path, [7]).model_copy(update={"shards": (shard,)})
    quarantine = Quarantine(limit=5)
    batches = draw(tmp_path, manifest, build_config(), 4, quarantine=quarantine)
    assert all(bool(batch.mean.isfinite().all()) for batch, _ in batches)
    (found,) = quarantine.records
    assert (found.clip_id, "not finite" in found.reason) == ("clip002", True)


def test_every_thread_is_told_that_the_limit_is_passed() -> None:
    found = [
        QuarantinedExample(shard_uri="a", example=i, clip_id=None, reason=f"torn {i}")
        for i in range(2)
    ]
    quarantine = Quarantine(limit=1)
    quarantine.add(found[0])
    with pytest.raises(IntegrityError, match="2 examples could not be read"):
        quarantine.add(found[1])
    for known in found:  # another thread, which has met nothing new
        with pytest.raises(IntegrityError, match="2 examples could not be read"):
            quarantine.add(known)
    assert quarantine.num_examples == 2


def test_a_data_set_of_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7] * 12)
    for shard in manifest.shards:
        (tmp_path / shard.uri).unlink()
    with pytest.raises(IntegrityError, match=r"position 0: none of 64 .*\.tar: not in the store"):
        draw(tmp_path, manifest, build_config(max_quarantined=100), 1)


def test_what_was_read_badly_once_is_not_set_aside(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7] * 12)
    expected = draw(tmp_path, manifest, build_config(), 6)
    store, quarantine, reads = open_store(str(tmp_path)), Quarantine(limit=0), count(1)

    class Flaky:
        def get_bytes(self, key: str) -> bytes:
            return store.get_bytes(key)

        def read_range(self, key: str, offset: int, size: int) -> bytes:
            content = store.read_range(key, offset, size)
            return content if next(reads) % 7 else bytes(len(content))

    batches = stream_batches(
        manifest,
        build_config(read_threads=1),
        START,
        source=Flaky(),
        seed=7,
        quarantine=quarantine,
    )
    found = list(islice(batches, 6))
    assert next(reads) > 14
    assert quarantine.records == ()
    assert all(same(a, b) for (a, _), (b, _) in zip(found, expected, strict=True))


class FailingStore:
    """A store that answers some requests with a failure that may pass."""

    def __init__(self, folder: Path) -> None:
        self._store = open_store(str(folder))
        self.calls = 0

    def get_bytes(self, key: str) -> bytes:
        return self._store.get_bytes(key)

    def read_range(self, key: str, offset: int, size: int) -> bytes:
        self.calls += 1
        if self.calls == 9:
            raise StoreError("503 after 5 tries")
        return self._store.read_range(key, offset, size)


def test_store_failure_is_raised_and_not_taken_for_damage(
    tmp_path: Path,
) -> None:
    manifest = write_dataset(tmp_path, [7] * 12)
    quarantine = Quarantine(limit=5)
    batches = stream_batches(
        manifest,
        build_config(read_threads=1),
        START,
        source=FailingStore(tmp_path),
        seed=7,
        quarantine=quarantine,
    )
    with pytest.raises(StoreError, match="503"):
        list(islice(batches, 6))
    assert quarantine.num_examples == 0


def test_heldout_windows_come_in_one_order_once(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7] * 5 + [9, 8, 5, 10], heldout=4)
    source = open_store(str(tmp_path))
    config = build_config(batch_size=2)
    first = list(OrderedBatches(manifest, config, source=source))
    second = list(OrderedBatches(manifest, config, source=source))
    assert [batch.clip_ids for batch in first] == [("clip008", "clip005"), ("clip006",)]
    assert all(start == 0 for batch in first for start in batch.start_frames)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    limited = list(OrderedBatches(manifest, config, source=source, limit=1))
    assert [batch.clip_ids for batch in limited] == [("clip008",)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"height": 8}, "has no train clip of 8x32; it has: 16x32"),
        ({"num_frames": 99}, "needs 99 stored frames; the longest train clip has 7"),
    ],
    ids=["no-such-size", "no-such-length"],
)
def test_what_cannot_be_drawn_is_a_sentence(
    tmp_path: Path, changes: dict[str, int], sentence: str
) -> None:
    manifest = write_dataset(tmp_path, [7] * 5)
    with pytest.raises(ConfigError, match=sentence):
        draw(tmp_path, manifest, build_config(**changes), 1)


def test_batch_that_ranks_cannot_share_is_a_sentence(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path, [7] * 5)
    with pytest.raises(ConfigError, match="batch_size=4 is not a multiple of world_size=3"):
        draw(tmp_path, manifest, build_config(), 1, world_size=3)


def test_closing_the_stream_ends_its_threads(tmp_path: Path) -> None:
    import threading

    manifest = write_dataset(tmp_path, [7] * 5)
    batches = stream_batches(
        manifest, build_config(), START, source=open_store(str(tmp_path)), seed=7
    )
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name.startswith("latents"):
            thread.join(timeout=5)
            assert not thread.is_alive()
