"""Windows of one split and size of a data set, at any position of their endless order."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from svd.config.data import StreamConfig
from svd.data.stream.examples import Window, read_window
from svd.data.stream.order import Address, StreamOrder
from svd.data.stream.quarantine import Quarantine, QuarantinedExample, quarantine_limit
from svd.data.stream.shards import ByteSource, read_index
from svd.data.stream.shared_cache import SharedCache
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.runtime.seed import numpy_generator
from svd.types.annotation import Caption, CaptionSource, SplitName
from svd.types.shard import ShardIndex, ShardInfo, ShardManifest

# What a draw decides; the second part of its key, after the seed.
_WINDOW, _SUBSTITUTE = 11, 13
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
        self.quarantine = quarantine or Quarantine(limit=quarantine_limit(config, manifest))
        self._source = source
        self._seed = seed
        self._shards = _select(manifest, config, split)
        self.order = StreamOrder(
            [shard.num_at_least(config.min_span) for shard in self._shards],
            seed=seed,
            shards_mixed=config.shards_mixed,
        )
        # Every group of shards in use, and the one that a batch may begin to need.
        self._index = SharedCache(self._read_index, max_size=2 * config.shards_mixed)

    def draw(self, position: int, *, place: int, num_frames: int) -> Example:
        """Return the window at a position of the stream, which is a place in this size's order.

        An example that cannot be read is set aside and replaced by one that depends on nothing
        but seed and position, so the replacement is the same in every run and on every rank.

        Raises:
            IntegrityError: Too many examples cannot be read.
            StoreError: The store failed; unlike bad bytes this may pass, so nothing is replaced.
        """
        address = self.order.locate(place)
        reason = ""
        for attempt in range(_MAX_SUBSTITUTES):
            if attempt:
                generator = numpy_generator(self._seed, _SUBSTITUTE, position, attempt)
                address = self.order.flat(int(generator.integers(self.order.num_examples)))
            try:
                return self._read_twice(address, position=position, num_frames=num_frames)
            except (IntegrityError, MissingInputError) as err:
                reason = str(err)
                self.quarantine.add(self._found_bad(address, reason=reason))
        raise IntegrityError(
            f"position {position}: none of {_MAX_SUBSTITUTES} examples drawn for it could be read; "
            f"the last: {reason}"
        )

    def first_window(self, example: int) -> Example:
        """Return the first window of an example, counted over the shards without shuffling."""
        return self._read_twice(self.order.flat(example), position=example, num_frames=None)

    def _read_twice(self, address: Address, *, position: int, num_frames: int | None) -> Example:
        """Read once more what does not have its hash: it may be the way here that is at fault."""
        try:
            return self._read(address, position=position, num_frames=num_frames)
        except IntegrityError:
            return self._read(address, position=position, num_frames=num_frames)

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


def _select(
    manifest: ShardManifest, config: StreamConfig, split: SplitName
) -> tuple[ShardInfo, ...]:
    shards = manifest.select(split, height=config.height, width=config.width)
    if not shards:
        sizes = ", ".join(f"{height}x{width}" for height, width in manifest.sizes)
        raise ConfigError(
            f"the data set has no {split} clip of {config.height}x{config.width}; it has: {sizes}"
        )
    if split == "train" and config.tier != "all":
        shards = tuple(shard for shard in shards if shard.tier == config.tier)
        if not shards:
            raise ConfigError(
                f"tier={config.tier}: no training clip of {config.height}x{config.width} is of it; "
                "loosen filter.high_quality, or take tier=all"
            )
    if not any(shard.num_at_least(config.min_span) for shard in shards):
        longest = max(shard.lengths[0].num_frames for shard in shards)
        raise ConfigError(
            f"num_frames={config.num_frames} needs {config.min_span} stored frames; the longest "
            f"{split} clip has {longest}"
        )
    return shards
