"""The endless stream of training windows: one integer of state, equal on any number of ranks."""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from svd.config.data import StreamConfig
from svd.data.examples import Window, read_window
from svd.data.order import Address, StreamOrder
from svd.data.quarantine import Quarantine, QuarantinedExample
from svd.data.shards import ByteSource, read_index
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.runtime.seed import numpy_generator
from svd.types.annotation import Caption, CaptionSource, SplitName
from svd.types.batch import LatentBatch
from svd.types.shard import ShardIndex, ShardInfo, ShardManifest, StreamPosition

# What a draw decides; the second part of its key, after the seed.
_WINDOW, _MODE, _SUBSTITUTE = 11, 12, 13
_MAX_SUBSTITUTES = 64  # for one position; where half of all data is unreadable, 2^-64 runs out


class Example(NamedTuple):
    """A window drawn for a position, with what the draw decided."""

    window: Window
    position: int
    caption: str
    start_frame: int
    stride: int


class LatentReader:
    """Reads windows of one split and size of a data set; safe to share among threads."""

    def __init__(
        self,
        manifest: ShardManifest,
        config: StreamConfig,
        *,
        source: ByteSource,
        split: SplitName,
        seed: int,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Find the shards.

        Raises:
            ConfigError: The data set has no clip of this split, size and length.
        """
        self.config = config
        self.block_frames = manifest.block_frames
        self.quarantine = quarantine or Quarantine(limit=config.max_quarantined)
        self._source = source
        self._seed = seed
        self._shards = _select(manifest, config, split)
        self.order = StreamOrder(
            [shard.num_at_least(config.min_span) for shard in self._shards],
            seed=seed,
            shards_mixed=config.shards_mixed,
        )
        # Every group of shards in use, and the one that a batch may begin to need.
        self._index = lru_cache(maxsize=2 * config.shards_mixed)(self._read_index)

    def draw(self, position: int, *, num_frames: int) -> Example:
        """Return the window at a position of the stream.

        An example that cannot be read is set aside and replaced by one that depends on nothing
        but seed and position, so the replacement is the same in every run and on every rank.

        Raises:
            IntegrityError: Too many examples cannot be read.
            StoreError: The store failed; unlike bad bytes this may pass, so nothing is replaced.
        """
        address = self.order.locate(position)
        for attempt in range(_MAX_SUBSTITUTES):
            if attempt:
                generator = numpy_generator(self._seed, _SUBSTITUTE, position, attempt)
                address = self.order.flat(int(generator.integers(self.order.num_examples)))
            try:
                return self._read(address, position=position, num_frames=num_frames)
            except (IntegrityError, MissingInputError) as err:
                self.quarantine.add(self._found_bad(address, reason=str(err)))
        raise IntegrityError(f"position {position}: {_MAX_SUBSTITUTES} examples are unreadable")

    def first_window(self, example: int) -> Example:
        """Return the first window of an example, counted over the shards without shuffling."""
        return self._read(self.order.flat(example), position=example, num_frames=None)

    def _read(self, address: Address, *, position: int, num_frames: int | None) -> Example:
        shard = self._shards[address.shard]
        entry = self._index(address.shard).examples[address.example]
        generator = numpy_generator(self._seed, _WINDOW, position)
        if num_frames is None:
            stride, block = min(self.config.frame_strides), 0
            num_frames = self.config.num_frames
        else:
            strides = fitting_strides(self.config.frame_strides, num_frames, entry.num_frames)
            stride = strides[int(generator.integers(len(strides)))]
            last_start = entry.num_frames - ((num_frames - 1) * stride + 1)
            block = int(generator.integers(last_start // self.block_frames + 1))
        start = block * self.block_frames
        window = read_window(
            self._source,
            shard,
            entry,
            block=block,
            frames=range(start, start + num_frames * stride, stride),
            block_frames=self.block_frames,
        )
        caption = draw_caption(window.meta.captions, self.config.caption_weights, generator)
        return Example(window, position, caption, start, stride)

    def _read_index(self, shard: int) -> ShardIndex:
        return read_index(self._source, self._shards[shard])

    def _found_bad(self, address: Address, *, reason: str) -> QuarantinedExample:
        shard = self._shards[address.shard]
        try:
            clip_id = self._index(address.shard).examples[address.example].key
        except (IntegrityError, MissingInputError):
            clip_id = None
        return QuarantinedExample(
            shard_uri=shard.uri, example=address.example, clip_id=clip_id, reason=reason
        )


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
    reader = LatentReader(
        manifest, config, source=source, split=split, seed=seed, quarantine=quarantine
    )
    return _read_ahead(reader, position, seed=seed, rank=rank, world_size=world_size)


def ordered_batches(
    manifest: ShardManifest,
    config: StreamConfig,
    *,
    source: ByteSource,
    split: SplitName = "heldout",
    limit: int | None = None,
) -> Iterator[LatentBatch]:
    """Yield the first window of every long enough clip once, in a fixed order.

    Window and caption are the same in every call, whatever the seed: for validation and
    evaluation. The last batch may be smaller.

    Args:
        manifest: The data set.
        config: Which size, length and batch size; the smallest stride is taken.
        source: Where the shards lie.
        split: Which clips.
        limit: At most so many windows; None: all.

    Raises:
        ConfigError: No clip fits.
        IntegrityError: An example cannot be read: a metric over fewer clips would be another one.
        StoreError: The store failed.
    """
    reader = LatentReader(manifest, config, source=source, split=split, seed=0)
    total = min(reader.order.num_examples, limit or reader.order.num_examples)
    for start in range(0, total, config.batch_size):
        stop = min(start + config.batch_size, total)
        yield collate([reader.first_window(example) for example in range(start, stop)])


def fitting_strides(strides: Sequence[int], num_frames: int, available: int) -> tuple[int, ...]:
    """Return the strides at which a window of so many frames fits into the available ones."""
    return tuple(stride for stride in strides if (num_frames - 1) * stride + 1 <= available)


def draw_caption(
    captions: Sequence[Caption],
    weights: Mapping[CaptionSource, float],
    generator: np.random.Generator,
) -> str:
    """Draw one caption by the weights of the sources present; "" where there is none.

    The paper draws with 0.5 (CoCa), 0.25 (V-BLIP), 0.25 (LLM); section 3.1 and appendix C.
    """
    usable = [caption for caption in captions if caption.source in weights]
    if not usable:
        return ""
    share = np.array([weights[caption.source] for caption in usable])
    return usable[int(generator.choice(len(usable), p=share / share.sum()))].text


def collate(examples: Sequence[Example]) -> LatentBatch:
    """Stack windows of equal length into a batch."""
    moments = torch.stack([example.window.moments for example in examples])
    return LatentBatch(
        mean=moments[:, :, 0],
        logvar=moments[:, :, 1],
        cond_frame=torch.stack([example.window.cond_frame for example in examples]),
        image_embeds=torch.stack([example.window.image_embed for example in examples])[:, None],
        last_embeds=_stack_last_embeds(examples),
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


def _read_ahead(
    reader: LatentReader, position: StreamPosition, *, seed: int, rank: int, world_size: int
) -> Iterator[tuple[LatentBatch, StreamPosition]]:
    """Keep the examples of the next batches in flight on a pool of threads."""
    config = reader.config
    share = config.batch_size // world_size
    queue: deque[tuple[list[Future[Example]], StreamPosition]] = deque()
    starts = itertools.count(position.examples_drawn, config.batch_size)
    with ThreadPoolExecutor(config.read_threads, thread_name_prefix="latents") as pool:
        try:
            while True:
                while len(queue) < config.prefetch_batches:
                    start = next(starts)
                    first = start + rank * share
                    num_frames = batch_frames(config, seed=seed, start=start)
                    futures = [
                        pool.submit(reader.draw, place, num_frames=num_frames)
                        for place in range(first, first + share)
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


def _select(
    manifest: ShardManifest, config: StreamConfig, split: SplitName
) -> tuple[ShardInfo, ...]:
    shards = manifest.select(split, height=config.height, width=config.width)
    if not shards:
        sizes = ", ".join(f"{height}x{width}" for height, width in manifest.sizes)
        raise ConfigError(
            f"the data set has no {split} clip of {config.height}x{config.width}; it has: {sizes}"
        )
    if not any(shard.num_at_least(config.min_span) for shard in shards):
        longest = max(shard.lengths[0].num_frames for shard in shards)
        raise ConfigError(
            f"num_frames={config.num_frames} needs {config.min_span} stored frames; the longest "
            f"{split} clip has {longest}"
        )
    return shards
