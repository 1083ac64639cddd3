"""The endless stream of training windows: one integer of state, equal on any number of ranks."""

import functools
import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import overload

import torch

from svd.config.data import StreamConfig
from svd.data.stream.buckets import BatchTurns
from svd.data.stream.quarantine import Quarantine, quarantine_limit
from svd.data.stream.reader import Example, LatentReader
from svd.data.stream.shards import ByteSource
from svd.errors import ConfigError
from svd.runtime.seed import numpy_generator
from svd.types.annotation import SplitName
from svd.types.batch import LatentBatch
from svd.types.shard import ShardManifest, StreamPosition

# What a draw decides; the second part of its key, after the seed.
_MODE = 12


def stream_batches(
    manifest: ShardManifest,
    config: StreamConfig,
    position: StreamPosition,
    *,
    source: ByteSource,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    split: SplitName = "train",
    quarantine: Quarantine | None = None,
) -> Iterator[tuple[LatentBatch, StreamPosition]]:
    """Yield this rank's part of each global batch, and the position after that batch, for ever.

    A global batch is `config.batch_size` consecutive positions; rank r takes the r-th of
    `world_size` equal slices. What stands at a position depends on nothing but the manifest, the
    config and the seed: any number of ranks and threads sees the same stream, and starting at a
    saved position costs the same as starting at 0.

    Args:
        manifest: The data set.
        config: How windows are drawn.
        position: Where to start: the one yielded with the last batch that was used.
        source: Where the shards lie.
        seed: Chooses order, windows and captions.
        rank: Which slice, in 0..world_size - 1.
        world_size: Number of slices.
        split: Which clips.
        quarantine: Where unreadable examples are noted; a new one by default.

    Raises:
        ConfigError: No clip fits, or batch_size is not a multiple of world_size.
        IntegrityError: Too many examples cannot be read.
        StoreError: The store failed, after its retries.
    """
    if config.batch_size % world_size:
        raise ConfigError(
            f"batch_size={config.batch_size} is not a multiple of world_size={world_size}"
        )
    quarantine = quarantine or Quarantine(limit=quarantine_limit(config, manifest))
    readers = [
        LatentReader(
            manifest,
            config.at(size),
            source=source,
            split=split,
            seed=seed,
            quarantine=quarantine,
        )
        for size in config.sizes
    ]
    return _read_ahead(readers, config, position, seed=seed, rank=rank, world_size=world_size)


class OrderedBatches(Sequence[LatentBatch]):
    """The first window of every long enough clip of the main size once, in a fixed order.

    A batch is read when it is asked for. Window and caption are the same every time, whatever the
    seed: for validation and evaluation. The last batch may be smaller.
    """

    def __init__(
        self,
        manifest: ShardManifest,
        config: StreamConfig,
        *,
        source: ByteSource,
        split: SplitName = "heldout",
        limit: int | None = None,
    ) -> None:
        """Find the clips.

        Args:
            manifest: The data set.
            config: Which size, length and batch size; the smallest stride is taken.
            source: Where the shards lie.
            split: Which clips.
            limit: At most so many windows; None: all.

        Raises:
            ConfigError: No clip fits.
        """
        main = config.at(config.sizes[0])
        self._reader = LatentReader(manifest, main, source=source, split=split, seed=0)
        self._batch_size = config.batch_size
        num_examples = self._reader.order.num_examples
        self._total = min(num_examples, limit or num_examples)

    def __len__(self) -> int:
        return math.ceil(self._total / self._batch_size)

    @overload
    def __getitem__(self, index: int) -> LatentBatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[LatentBatch]: ...
    def __getitem__(self, index: int | slice) -> LatentBatch | list[LatentBatch]:
        """Read a batch, or several.

        Raises:
            IndexError: There is none of that number.
            IntegrityError: An example cannot be read: a metric over fewer clips would be another.
            StoreError: The store failed.
        """
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start = range(len(self))[index] * self._batch_size
        stop = min(start + self._batch_size, self._total)
        return collate([self._reader.first_window(example) for example in range(start, stop)])


def collate(examples: Sequence[Example]) -> LatentBatch:
    """Stack windows of equal length into a batch."""
    moments = torch.stack([example.window.moments for example in examples])
    return LatentBatch(
        mean=moments[:, :, 0],
        logvar=moments[:, :, 1],
        cond_frame=torch.stack([example.window.cond_frame for example in examples]),
        image_embeds=torch.stack([example.window.image_embed for example in examples])[:, None],
        last_embeds=_stack_last_embeds(examples),
        poses=_stack_poses(examples, num_frames=moments.shape[1]),
        fps=torch.tensor([float(e.window.meta.fps / e.stride) for e in examples]),
        motion_bucket_id=torch.tensor([e.window.meta.motion_bucket_id for e in examples]),
        captions=tuple(example.caption for example in examples),
        clip_ids=tuple(example.window.meta.clip_id for example in examples),
        start_frames=tuple(example.start_frame for example in examples),
        positions=tuple(example.position for example in examples),
        image_only=moments.shape[1] == 1,
    )


def _stack_last_embeds(examples: Sequence[Example]) -> torch.Tensor | None:
    embeds = [example.window.last_embed for example in examples]
    present = [embed for embed in embeds if embed is not None]
    return torch.stack(present)[:, None] if len(present) == len(embeds) else None


def _stack_poses(examples: Sequence[Example], *, num_frames: int) -> torch.Tensor | None:
    """Return elevation and azimuth of every frame; azimuth counts from a window's frame 0."""
    stacked = []
    for example in examples:
        poses = example.window.meta.poses[example.start_frame :: example.stride][:num_frames]
        if not poses:
            return None
        start = poses[0].azimuth_deg
        stacked.append([(pose.elevation_deg, (pose.azimuth_deg - start) % 360) for pose in poses])
    return torch.tensor(stacked, dtype=torch.float32)


def _read_ahead(
    readers: Sequence[LatentReader],
    config: StreamConfig,
    position: StreamPosition,
    *,
    seed: int,
    rank: int,
    world_size: int,
) -> Iterator[tuple[LatentBatch, StreamPosition]]:
    """Keep the examples of the next batches in flight on a pool of threads."""
    turns = BatchTurns(
        [reader.order.num_examples for reader in readers], batch_size=config.batch_size, seed=seed
    )
    share = config.batch_size // world_size
    queue: deque[tuple[list[Future[Example]], StreamPosition]] = deque()
    starts = itertools.count(position.examples_drawn, config.batch_size)
    with ThreadPoolExecutor(config.read_threads, thread_name_prefix="latents") as pool:
        try:
            while True:
                while len(queue) < config.prefetch_batches:
                    start = next(starts)
                    bucket, place = turns.locate(start)
                    num_frames = batch_frames(config, seed=seed, start=start)
                    draw = functools.partial(readers[bucket].draw, num_frames=num_frames)
                    futures = [
                        pool.submit(draw, start + offset, place=place + offset)
                        for offset in range(rank * share, (rank + 1) * share)
                    ]
                    after = StreamPosition(examples_drawn=start + config.batch_size)
                    queue.append((futures, after))
                futures, after = queue.popleft()
                yield collate([future.result() for future in futures]), after
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def batch_frames(config: StreamConfig, *, seed: int, start: int) -> int:
    """Return how many frames the windows of the global batch at a position have.

    A mixed stream draws per batch, since pictures and clips do not stack; ranks agree because
    the draw hangs on where the global batch starts.
    """
    generator = numpy_generator(seed, _MODE, start)
    is_image = generator.random() < config.image_batch_fraction
    return 1 if is_image else config.num_frames
