"""How fast the latent stream is, and what resuming costs, against plain webdataset and raw reads.

    python benchmarks/stream.py [--examples 512] [--frames 48] [--height 64] [--width 128]

All three read the same shards in the same run, in turns, and the median of the rounds counts.
"plain webdataset" does what a training script without an index does: shuffle shards and a buffer,
decode every member, take one window, collate. Raw reads are the shards' bytes, front to back.
The last line is JSON: `examples_per_s`, ratios, and what resuming far into a stream costs.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import webdataset

from svd.config.data import StreamConfig
from svd.data.motion import fit_motion_table
from svd.data.stream.examples import EncodedClip, pack
from svd.data.stream.shards import save_shard
from svd.data.stream.stream import stream_batches
from svd.runtime.storage import open_store
from svd.types.shard import ExampleMeta, ShardManifest, StreamPosition

BLOCK = 4  # frames per block
NUM_FRAMES = 8  # of a window
BATCH = 8
ROUNDS = 5


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_dataset(Path(folder), arguments)
        config = StreamConfig(
            height=arguments.height,
            width=arguments.width,
            num_frames=NUM_FRAMES,
            batch_size=BATCH,
            read_threads=arguments.threads,
        )
        rates = measure(Path(folder), manifest, config)
        resume = measure_resume(Path(folder), manifest, config)
    print_table(rates, resume)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--frames", type=int, default=48, help="stored frames per example")
    parser.add_argument("--height", type=int, default=64, help="pixels")
    parser.add_argument("--width", type=int, default=128, help="pixels")
    parser.add_argument("--per-shard", type=int, default=32)
    parser.add_argument("--threads", type=int, default=4, help="read threads of our stream")
    return parser.parse_args()


def write_dataset(folder: Path, arguments: argparse.Namespace) -> ShardManifest:
    """Shards with the sizes of real ones: smooth pictures, latents that are noise."""
    rng = np.random.default_rng(0)
    packed = [
        pack(fake_clip(i, arguments, rng), block_frames=BLOCK) for i in range(arguments.examples)
    ]
    size = {"height": arguments.height, "width": arguments.width}
    shards = tuple(
        save_shard(folder, packed[i : i + arguments.per_shard], split="train", **size)
        for i in range(0, len(packed), arguments.per_shard)
    )
    return ShardManifest(
        shards=shards,
        fps=Fraction(8),
        block_frames=BLOCK,
        latent_channels=4,
        latent_downscale=8,
        latent_scale=1.0,
        embed_dim=1024,
        encoders=(),
        motion_table=fit_motion_table([1.0], scorer="none"),
    )


def fake_clip(number: int, arguments: argparse.Namespace, rng: np.random.Generator) -> EncodedClip:
    height, width, frames = arguments.height, arguments.width, arguments.frames
    num_blocks = -(-frames // BLOCK)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((x + 9 * b + number) / 11) * np.cos(y / (7 + b)) for b in range(num_blocks)]
    pictures = (
        127.5 + 90 * np.stack(waves)[:, None] + rng.normal(0, 4, (num_blocks, 3, height, width))
    )
    return EncodedClip(
        meta=ExampleMeta(
            clip_id=f"clip{number:06d}",
            video_id="video",
            clip_sha256="0" * 64,
            num_frames=frames,
            fps=Fraction(8),
            captions=(),
            motion_score=1.0,
            motion_bucket_id=127,
        ),
        moments=torch.from_numpy(rng.normal(size=(frames, 2, 4, height // 8, width // 8))),
        cond_frames=torch.from_numpy(pictures.clip(0, 255).astype(np.uint8)),
        image_embeds=torch.from_numpy(rng.normal(size=(num_blocks, 1024))),
    )


def ours(folder: Path, manifest: ShardManifest, config: StreamConfig) -> Iterator[int]:
    batches = stream_batches(
        manifest, config, StreamPosition(), source=open_store(str(folder)), seed=0
    )
    return (len(batch.clip_ids) for batch, _ in batches)


def plain(folder: Path, manifest: ShardManifest) -> Iterator[int]:
    """One window per example through webdataset's own pipeline, for ever."""
    urls = [str(folder / shard.uri) for shard in manifest.shards]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0, repeat=True)
        .shuffle(256)
        .decode("torchrgb8")
        .map(plain_window)
        .batched(BATCH)
    )
    return (len(batch[0]) for batch in dataset)


def plain_window(sample: dict[str, object]) -> tuple[object, ...]:
    moments = np.concatenate(
        [sample[name] for name in sorted(sample) if name.startswith("moments.")]
    )
    num_blocks = sum(name.startswith("cond.") for name in sample)
    last = (len(moments) - NUM_FRAMES) // BLOCK
    block = int(np.random.default_rng().integers(min(num_blocks, last + 1)))
    start = block * BLOCK
    window = torch.from_numpy(moments[start : start + NUM_FRAMES].astype(np.float32))
    embeds = sample["image_embeds.npy"][block]
    return window, sample[f"cond.{block:04d}.png"], torch.from_numpy(embeds.astype(np.float32))


def raw(folder: Path, manifest: ShardManifest) -> float:
    """Seconds to read all shards front to back."""
    start = time.perf_counter()
    for shard in manifest.shards:
        with (folder / shard.uri).open("rb") as file:
            while file.read(1 << 20):
                pass
    return time.perf_counter() - start


def measure(folder: Path, manifest: ShardManifest, config: StreamConfig) -> dict[str, float]:
    num_examples = sum(shard.num_examples for shard in manifest.shards)
    megabytes = sum(shard.size_bytes for shard in manifest.shards) / 1e6
    num_batches = num_examples // BATCH
    sources: dict[str, Callable[[], Iterator[int]]] = {
        "ours": lambda: ours(folder, manifest, config),
        "webdataset": lambda: plain(folder, manifest),
    }
    seconds: dict[str, list[float]] = {"ours": [], "webdataset": [], "raw": []}
    for _ in range(ROUNDS):
        seconds["raw"].append(raw(folder, manifest))
        for name, make in sources.items():
            batches = make()
            next(batches)  # start-up is not throughput
            start = time.perf_counter()
            drawn = sum(islice(batches, num_batches))
            seconds[name].append((time.perf_counter() - start) * num_examples / drawn)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "examples": num_examples,
        "dataset_mb": megabytes,
        "examples_per_s": num_examples / median["ours"],
        "examples_per_s_webdataset": num_examples / median["webdataset"],
        "dataset_mb_per_s": megabytes / median["ours"],
        "dataset_mb_per_s_webdataset": megabytes / median["webdataset"],
        "mb_per_s_raw": megabytes / median["raw"],
    }


class CountingSource:
    """A store that counts the bytes that are read from it."""

    def __init__(self, uri: str) -> None:
        self._store = open_store(uri)
        self.num_bytes = 0

    def get_bytes(self, key: str) -> bytes:
        """Read an object."""
        return self._count(self._store.get_bytes(key))

    def read_range(self, key: str, offset: int, size: int) -> bytes:
        """Read a part of one."""
        return self._count(self._store.read_range(key, offset, size))

    def _count(self, content: bytes) -> bytes:
        self.num_bytes += len(content)
        return content


def measure_resume(folder: Path, manifest: ShardManifest, config: StreamConfig) -> dict[str, float]:
    """Time to the first batch at the start, and after 10,000 shards of a set of 20,000."""
    many = -(-20_000 // len(manifest.shards)) * manifest.shards
    large = manifest.model_copy(update={"shards": many[:20_000]})
    far = sum(shard.num_examples for shard in large.shards[:10_000])

    def first_batch(position: int) -> float:
        source = open_store(str(folder))
        start = time.perf_counter()
        batches = stream_batches(
            large, config, StreamPosition(examples_drawn=position), source=source, seed=0
        )
        next(batches)
        return time.perf_counter() - start

    def reads_to_first_batch(position: int) -> int:
        source = CountingSource(str(folder))
        batches = stream_batches(
            large, config, StreamPosition(examples_drawn=position), source=source, seed=0
        )
        next(batches)
        batches.close()
        return source.num_bytes

    at_start = statistics.median(first_batch(0) for _ in range(ROUNDS))
    after = statistics.median(first_batch(far) for _ in range(ROUNDS))
    batches = plain(folder, manifest)
    start = time.perf_counter()
    skipped = sum(islice(batches, 512 // BATCH))
    per_example = (time.perf_counter() - start) / skipped
    return {
        "first_batch_s": at_start,
        "first_batch_s_after_10000_shards": after,
        "resume_extra_s": after - at_start,
        "bytes_to_first_batch": reads_to_first_batch(0),
        "bytes_to_first_batch_after_10000_shards": reads_to_first_batch(far),
        "skip_s_webdataset_10000_shards": per_example * far,  # extrapolated from 512 examples
    }


def print_table(rates: dict[str, float], resume: dict[str, float]) -> None:
    result = rates | resume
    result["examples_per_s_ratio_vs_webdataset"] = (
        rates["examples_per_s"] / rates["examples_per_s_webdataset"]
    )
    for name, value in result.items():
        print(f"{name:42} {value:12.4g}")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
