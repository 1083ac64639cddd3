"""A small data set of moving textures, a small autoencoder, and recipes that train on them."""

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml

from svd.config.model import AutoencoderConfig, DenoiserConfig, ImageEncoderConfig
from svd.config.training import TrainingStageConfig
from svd.data.motion import fit_motion_table
from svd.data.stream.examples import EncodedClip, pack
from svd.data.stream.shards import save_shard
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.tower import freeze, seeded
from svd.runtime.fingerprint import file_sha256
from svd.runtime.seed import torch_generator
from svd.runtime.workspace import Workspace
from svd.types.annotation import Caption, Scorer
from svd.types.artifact import ModelRecord
from svd.types.shard import ExampleMeta, ShardManifest
from svd.types.stage import TRAINING_STAGES, TrainingStage

HEIGHT, WIDTH = 16, 32  # pixels; latents are 4x8
NUM_FRAMES = 4
SCORER = Scorer(name="fake", version="1", settings={})
AUTOENCODER = AutoencoderConfig(
    base_channels=4, channel_mult=(1, 1, 1), num_res_blocks=1, norm_groups=2
)
DENOISER = DenoiserConfig.model_validate_json(
    json.dumps(
        {
            "unet": {
                "in_channels": 4,
                "model_channels": 8,
                "channel_mult": [1, 2],
                "num_res_blocks": 1,
                "attention_factors": [1],
                "head_dim": 8,
                "context_dim": 16,
                "added_cond_dim": 24,
                "added_id_dim": 8,
                "norm_groups": 4,
            }
        }
    )
)
TEXT_ENCODER = {"kind": "tiny", "width": 16, "heads": 2, "layers": 2, "context_length": 8}


@dataclass(frozen=True)
class Encode:
    """What `stages.run` reads of the section `encode`."""

    image_encoder: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig(kind="tiny", width=16)
    )


@dataclass(frozen=True)
class Recipe:
    """What `stages.run` reads of Params."""

    seed: int
    denoiser: DenoiserConfig
    encode: Encode = field(default_factory=Encode)
    pretrain_image: TrainingStageConfig | None = None
    pretrain_video: TrainingStageConfig | None = None
    finetune_t2v: TrainingStageConfig | None = None
    finetune_i2v: TrainingStageConfig | None = None
    lora: TrainingStageConfig | None = None

    def training(self, stage: TrainingStage) -> TrainingStageConfig:
        """Return the section of a stage that the test gave."""
        section = getattr(self, stage.partition("@")[0].replace("-", "_"))
        assert section is not None
        return section


def stage_config(**changes: Any) -> TrainingStageConfig:
    """A short stage of one phase; `phase` and other keys change parts of it."""
    phase = {
        "name": "only",
        "num_steps": 6,
        "data": {"height": HEIGHT, "width": WIDTH, "num_frames": NUM_FRAMES, "batch_size": 4},
        "micro_batch_size": 2,
        "lr": 1.0e-3,
        "noise": {"p_mean": 0.0, "p_std": 1.0},
        "ema_decay": 0.9,
    }
    settings: dict[str, Any] = {
        "init": "scratch",
        "phases": [phase | changes.pop("phase", {})],
        "checkpoint": {"every_steps": 2},
        "validation": {"every_steps": 3, "num_examples": 2, "sigmas": [0.3, 2.0]},
        "log_every_steps": 2,
        "compute": {"device": "cpu"} | changes.pop("compute", {}),
    }
    return TrainingStageConfig.model_validate_json(json.dumps(settings | changes))


def build_autoencoder() -> Autoencoder:
    """The autoencoder that the data set was made with; random, which is enough to be one."""
    with seeded(7):
        autoencoder = Autoencoder(AUTOENCODER)
    with torch.no_grad():  # a narrow posterior, as a trained one has
        autoencoder.quant_conv.weight[4:] = 0
        autoencoder.quant_conv.bias[4:] = -10
    freeze(autoencoder)
    return autoencoder


def make_video(number: int) -> torch.Tensor:
    """Return uint8 frames "t 3 H W" of a smooth random texture that moves to the left."""
    coarse = torch.rand((1, 3, 6, 16), generator=torch_generator(number))
    texture = F.interpolate(coarse, size=(HEIGHT, 2 * WIDTH), mode="bilinear")[0]
    frames = [texture[:, :, shift : shift + WIDTH] for shift in range(NUM_FRAMES)]
    return (torch.stack(frames) * 255).round().to(torch.uint8)


def make_world(root: Path, *, num_train: int = 8, num_heldout: int = 4) -> Workspace:
    """Write data/latents, models/autoencoder and what `stage_fingerprint` reads below a root."""
    workspace = Workspace(root)
    autoencoder = build_autoencoder()
    workspace.latents.mkdir(parents=True)
    clips = [_encode(number, autoencoder) for number in range(num_train + num_heldout)]
    scale = float(1 / torch.cat([clip.moments[:, 0] for clip in clips]).std())
    packed = [pack(clip, block_frames=NUM_FRAMES) for clip in clips]
    parts = (("train", packed[:num_train]), ("heldout", packed[num_train:]))
    manifest = ShardManifest(
        shards=tuple(
            save_shard(workspace.latents, part, split=split, height=HEIGHT, width=WIDTH)
            for split, part in parts
        ),
        fps=Fraction(8),
        block_frames=NUM_FRAMES,
        latent_channels=4,
        latent_downscale=4,
        latent_scale=scale,
        embed_dim=16,
        encoders=(),
        motion_table=fit_motion_table([0.1, 0.2, 0.3], scorer="fake 1"),
    )
    (workspace.latents / "manifest.json").write_text(manifest.canonical_json())
    _save_autoencoder(workspace.model("autoencoder"), autoencoder)
    declared = {stage: {"params": ["seed"], "deps": ["data/latents"]} for stage in TRAINING_STAGES}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": declared}))
    (root / "params.yaml").write_text("seed: 1\n")
    return workspace


def _encode(number: int, autoencoder: Autoencoder) -> EncodedClip:
    frames = make_video(number)
    moments = autoencoder.encode(frames / 127.5 - 1)
    return EncodedClip(
        meta=ExampleMeta(
            clip_id=f"clip{number:03d}",
            video_id=f"{number:064x}",
            clip_sha256="0" * 64,
            num_frames=len(frames),
            fps=Fraction(8),
            captions=(Caption(text=f"texture {number}", source="measured", scorer=SCORER),),
            motion_score=0.2,
            motion_bucket_id=number % 256,
        ),
        moments=torch.stack([moments.mean, moments.logvar], dim=1),
        cond_frames=frames[:1],
        image_embeds=torch.randn((1, 16), generator=torch_generator(number, 1)),
    )


def _save_autoencoder(folder: Path, autoencoder: Autoencoder) -> None:
    weights = folder / "weights.safetensors"
    save_weights(autoencoder, weights)
    record = ModelRecord(
        stage="autoencoder",
        kind="autoencoder",
        architecture=AUTOENCODER.model_dump(mode="json"),
        weights_sha256=file_sha256(weights),
        num_parameters=sum(p.numel() for p in autoencoder.parameters()),
        step=0,
        examples_seen=0,
        params_fingerprint="",
        dataset_fingerprint="",
        init_sha256=None,
        run_fingerprint="",
    )
    (folder / "model.json").write_text(record.canonical_json())
