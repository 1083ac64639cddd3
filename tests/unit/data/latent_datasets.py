"""Small data sets written by the real packer, and readers over them."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from svd.config.data import StreamConfig
from svd.data.motion import fit_motion_table
from svd.data.stream.examples import EncodedClip, pack
from svd.data.stream.shards import save_shard
from svd.types.annotation import Caption, Scorer
from svd.types.shard import ExampleMeta, ShardManifest

BLOCK = 4  # frames per block
HEIGHT, WIDTH = 16, 32  # pixels; latents are 2x4
SCORER = Scorer(name="fake", version="1", settings={})


def make_clip(number: int, num_frames: int) -> EncodedClip:
    """A clip whose every number tells which clip and frame it belongs to."""
    num_blocks = -(-num_frames // BLOCK)
    moments = torch.zeros(num_frames, 2, 4, 2, 4)
    moments[:, 0] = number
    moments[:, 1] = torch.arange(num_frames)[:, None, None, None]
    texture = np.random.default_rng(number).integers(0, 256, (num_blocks, 3, HEIGHT, WIDTH))
    return EncodedClip(
        meta=ExampleMeta(
            clip_id=f"clip{number:03d}",
            video_id="video",
            clip_sha256="0" * 64,
            num_frames=num_frames,
            fps=Fraction(8),
            captions=(
                Caption(text=f"measured {number}", source="measured", scorer=SCORER),
                Caption(text=f"image {number}", source="image-model", scorer=SCORER),
            ),
            motion_score=number / 10,
            motion_bucket_id=number % 256,
        ),
        moments=moments,
        cond_frames=torch.from_numpy(texture.astype(np.uint8)),
        image_embeds=torch.arange(num_blocks)[:, None].expand(num_blocks, 3) + 100.0 * number,
    )


def write_dataset(
    folder: Path, lengths: Sequence[int], *, per_shard: int = 4, heldout: int = 0
) -> ShardManifest:
    """Write clips of these lengths; the last `heldout` of them are held out."""
    clips = [pack(make_clip(i, n), block_frames=BLOCK) for i, n in enumerate(lengths)]
    num_train = len(clips) - heldout
    shards = [
        save_shard(folder, part, split=split, height=HEIGHT, width=WIDTH)
        for split, chosen in (("train", clips[:num_train]), ("heldout", clips[num_train:]))
        for part in (chosen[i : i + per_shard] for i in range(0, len(chosen), per_shard))
    ]
    manifest = ShardManifest(
        shards=tuple(shards),
        fps=Fraction(8),
        block_frames=BLOCK,
        latent_channels=4,
        latent_downscale=8,
        latent_scale=0.5,
        embed_dim=3,
        encoders=(),
        motion_table=fit_motion_table([0.1, 0.2, 0.3], scorer="fake 1"),
    )
    (folder / "manifest.json").write_text(manifest.canonical_json())
    return manifest


def build_config(**changes: object) -> StreamConfig:
    """A config for the small data sets."""
    settings = {"height": HEIGHT, "width": WIDTH, "num_frames": 6, "batch_size": 4}
    return StreamConfig.model_validate_json(json.dumps(settings | changes))
