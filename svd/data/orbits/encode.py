"""The stage encode-orbits: views become examples of shards, as clips do, with their camera."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange

from svd.atomic import write_text
from svd.config.orbits import EncodeOrbitsConfig
from svd.data.encode import ShardsDone, publish
from svd.data.kept import read_stage_records
from svd.data.latents import (
    ClipEncoder,
    identify_autoencoder,
    identify_image_encoder,
    load_autoencoder,
)
from svd.data.orbits.archive import over_white_views, read_orbit
from svd.data.stream.examples import pack
from svd.data.stream.shards import PackedExample, load_manifest, save_shard
from svd.errors import ConfigError
from svd.models.networks.image_encoder import ImageEncoder
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.progress import track
from svd.runtime.storage import open_store
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.annotation import SplitName
from svd.types.artifact import StageReport, Value
from svd.types.orbit import OrbitMeta
from svd.types.shard import ExampleMeta, MotionTable, ShardManifest

if TYPE_CHECKING:
    from svd.config.params import Params


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Encode every orbit with the autoencoder and image encoder that clips are encoded with.

    Raises:
        ConfigError: Orbits differ in size or number of views.
        MissingInputError: A stage before has not run.
        IntegrityError: Weights or tars are not those that their records name.
    """
    torch.set_num_threads(1)  # the bytes depend on it
    config = params.encode_orbits
    index = workspace.orbits / "index.jsonl"
    metas = tuple(read_stage_records(index, OrbitMeta, stage="orbits"))
    num_views = _check_alike(metas)
    autoencoder, record = load_autoencoder(workspace.model("autoencoder"))
    encoder = ClipEncoder(
        autoencoder,
        ImageEncoder(params.encode.image_encoder),
        block_frames=num_views,  # an orbit is one window, from the view it starts with
        frames_at_once=config.frames_at_once,
        device=config.device,
    )
    table = load_manifest(open_store(str(workspace.latents.absolute()))).motion_table
    live = workspace.runs / stage_fingerprint(workspace, "encode-orbits")
    writer = _ShardWriter(encoder, config, table, workspace.orbits, live)
    tasks = plan_orbit_shards(metas, config.examples_per_shard)
    shown = track(tasks, total=len(tasks), description="encoding orbits", unit="shards")
    done = [writer(*task) for task in shown]
    manifest = ShardManifest(
        shards=tuple(shard for one in done for shard in one.shards),
        fps=Fraction(config.fps),
        block_frames=num_views,
        latent_channels=autoencoder.config.latent_channels,
        latent_downscale=autoencoder.config.downsampling,
        latent_scale=autoencoder.config.latent_scale,
        embed_dim=encoder.embed_dim,
        encoders=(
            identify_autoencoder(record),
            identify_image_encoder(params.encode.image_encoder),
        ),
        motion_table=table,
    )
    publish(live, manifest, workspace.orbit_latents)
    summary: dict[str, Value] = {
        "orbits": len(metas),
        "views": num_views * len(metas),
        "shards": len(manifest.shards),
        "dataset": manifest.content_hash(),
    }
    tracker.summarize(summary)
    outputs = ("data/orbit-latents/manifest.json",)
    return StageReport(stage="encode-orbits", summary=summary, outputs=outputs)


def _check_alike(metas: Sequence[OrbitMeta]) -> int:
    """Return the number of views of every orbit."""
    shapes = {(meta.num_views, meta.height, meta.width) for meta in metas}
    if len(shapes) != 1:
        raise ConfigError(f"data/orbits holds orbits of {len(shapes)} shapes: {sorted(shapes)}")
    return shapes.pop()[0]


def plan_orbit_shards(
    metas: Sequence[OrbitMeta], examples_per_shard: int
) -> list[tuple[str, SplitName, tuple[OrbitMeta, ...]]]:
    """Return a name, a split and the orbits of each shard, by their ids."""
    tasks: list[tuple[str, SplitName, tuple[OrbitMeta, ...]]] = []
    splits: tuple[SplitName, ...] = ("train", "heldout")
    for split in splits:
        chosen = sorted(
            (meta for meta in metas if meta.split == split), key=lambda meta: meta.orbit_id
        )
        for start in range(0, len(chosen), examples_per_shard):
            name = f"{split}-{start // examples_per_shard:05d}"
            tasks.append((name, split, tuple(chosen[start : start + examples_per_shard])))
    return tasks


class _ShardWriter:
    """Makes shards below a folder of live state; finished ones are not made again."""

    def __init__(
        self,
        encoder: ClipEncoder,
        config: EncodeOrbitsConfig,
        table: MotionTable,
        orbits: Path,
        live: Path,
    ) -> None:
        self._encoder = encoder
        self._config = config
        self._table = table
        self._orbits = orbits
        self._live = live
        (live / "done").mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, split: SplitName, metas: Sequence[OrbitMeta]) -> ShardsDone:
        mark = self._live / "done" / f"{name}.json"
        if mark.is_file():
            return ShardsDone.parse(mark.read_text(encoding="utf-8"), origin=str(mark))
        packed = [self._encode(meta) for meta in metas]
        size = metas[0]
        shard = save_shard(self._live, packed, split=split, height=size.height, width=size.width)
        done = ShardsDone(shards=(shard,), dropped=())
        write_text(mark, done.canonical_json())
        return done

    def _encode(self, meta: OrbitMeta) -> PackedExample:
        views = over_white_views(read_orbit(self._orbits, meta))
        example = ExampleMeta(
            clip_id=meta.orbit_id,
            video_id=meta.object_id,
            clip_sha256=meta.source_sha256,
            num_frames=meta.num_views,
            fps=Fraction(self._config.fps),
            captions=(),
            motion_score=self._motion_score(),
            motion_bucket_id=self._config.motion_bucket_id,
            poses=meta.poses,
        )
        frames = torch.from_numpy(np.ascontiguousarray(rearrange(views, "t H W c -> t c H W")))
        return pack(self._encoder.encode(example, frames), block_frames=meta.num_views)

    def _motion_score(self) -> float:
        """Return the least score of the bucket that the model is told."""
        bucket = self._config.motion_bucket_id
        return self._table.thresholds[bucket - 1] if bucket else 0.0
