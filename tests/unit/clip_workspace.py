"""A checkout as the stages before `autoencoder` and `encode` leave it, with tiny clips."""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml

from svd.config.autoencoder import AutoencoderStageConfig
from svd.config.data import EncodeConfig
from svd.config.decoder import DecoderStageConfig
from svd.media.encode import write_video
from svd.runtime.fingerprint import file_sha256
from svd.runtime.workspace import Workspace
from svd.types.annotation import Annotation, Caption, Scorer, Verdict
from svd.types.base import write_records
from svd.types.video import Clip, ClipSpan

WIDTH, HEIGHT = 64, 48  # pixels of the clips
FPS = 24
MEASURED = Scorer(name="measured", version="1", settings={})
AUTOENCODER = {
    "model": {
        "base_channels": 4,
        "channel_mult": [1, 2, 2, 2],
        "num_res_blocks": 1,
        "norm_groups": 2,
    },
    "frames": {
        "size": {"height": 16, "width": 32},
        "fps": 8,
        "max_per_clip": 4,
        "max_clips": 100,
        "decode_threads": 1,
    },
    "training": {
        "num_steps": 6,
        "batch_size": 2,
        "crop": 16,
        "lr": 1.0e-3,
        "kernel_lr": 0.01,
        "kl_weight": 1.0e-6,
        "ema_decay": 0.9,
        "checkpoint_every_steps": 2,
        "log_every_steps": 3,
    },
    "latent_scale": "measured",
}
DECODER = {
    "frames": AUTOENCODER["frames"],
    "training": {
        "num_steps": 6,
        "batch_size": 2,
        "num_frames": 3,
        "crop": 16,
        "trainable": "temporal",
        "lr": 1.0e-3,
        "perceptual": None,
        "adversary": {
            "weight": 0.5,
            "start_step": 3,
            "lr": 1.0e-3,
            "channels": 8,
            "num_layers": 1,
        },
        "ema_decay": 0.9,
        "checkpoint_every_steps": 2,
        "log_every_steps": 3,
    },
}
ENCODE = {
    "fps": 8,
    "sizes": [{"height": 16, "width": 32}],
    "block_frames": 4,
    "max_frames": 12,
    "examples_per_shard": 3,
    "frames_at_once": 5,
    "num_workers": 1,
    "image_encoder": {"kind": "tiny", "width": 8, "image_size": 28, "seed": 0},
    "motion_score": "motion.px",
}


def clip_pictures(number: int, num_frames: int) -> np.ndarray:
    """uint8 (t, H, W, 3): a wave that drifts; each clip has its own colours and direction."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    phases = np.arange(num_frames)[:, None, None] * (1 + number % 3)
    waves = [np.sin((x + phases + 7 * number) / (6 + c)) * np.cos(y / (9 + c)) for c in range(3)]
    return (127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def make_workspace(
    root: Path,
    *,
    lengths: Sequence[int] = (36, 24, 30, 12, 26, 48),
    heldout: int = 1,
    autoencoder: Mapping[str, object] = AUTOENCODER,
    encode: Mapping[str, object] = ENCODE,
) -> Workspace:
    """Write clips of these lengths in frames; the last `heldout` of them are held out."""
    folder = root / "data" / "clips" / "clips"
    folder.mkdir(parents=True)
    clips = [_make_clip(folder, number, length) for number, length in enumerate(lengths)]
    write_records(root / "data" / "clips" / "index.jsonl", clips)
    write_records(
        root / "data" / "annotations" / "annotations.jsonl",
        [_annotate(clip, number) for number, clip in enumerate(clips)],
    )
    num_train = len(clips) - heldout
    write_records(
        root / "data" / "filtered" / "verdicts.jsonl",
        [
            Verdict(
                clip_id=clip.clip_id,
                group_id=clip.clip_id,
                kept=True,
                reasons=(),
                split="train" if number < num_train else "heldout",
            )
            for number, clip in enumerate(clips)
        ],
    )
    sections = {
        "autoencoder": dict(autoencoder),
        "encode": dict(encode),
        "finetune-decoder": DECODER,
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"seed": 1, **sections}))
    stages = {
        stage: {
            "cmd": f"svd {stage}",
            "deps": ["data/clips", "data/filtered"],
            "params": ["seed", stage],
        }
        for stage in sections
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return Workspace(root)


def read_params(workspace: Workspace) -> SimpleNamespace:
    """The two sections under test; a whole recipe has more."""
    tree = yaml.safe_load(workspace.params_file.read_text())
    return SimpleNamespace(
        seed=tree["seed"],
        autoencoder=AutoencoderStageConfig.model_validate_json(json.dumps(tree["autoencoder"])),
        encode=EncodeConfig.model_validate_json(json.dumps(tree["encode"])),
        finetune_decoder=DecoderStageConfig.model_validate_json(
            json.dumps(tree["finetune-decoder"])
        ),
    )


def _make_clip(folder: Path, number: int, num_frames: int) -> Clip:
    clip_id = f"clip{number:03d}"
    path = folder / f"{clip_id}.mp4"
    write_video(path, clip_pictures(number, num_frames), FPS, crf=8)
    return Clip(
        clip_id=clip_id,
        span=ClipSpan(
            video_id=f"video{number % 2}",
            start_frame=0,
            stop_frame=num_frames,
            start_pts=0,
            stop_pts=num_frames,
            time_base=Fraction(1, FPS),
            method="copy",
        ),
        uri=f"clips/{clip_id}.mp4",
        sha256=file_sha256(path),
        width=WIDTH,
        height=HEIGHT,
        fps=Fraction(FPS),
        num_frames=num_frames,
        duration_s=num_frames / FPS,
    )


def _annotate(clip: Clip, number: int) -> Annotation:
    return Annotation(
        clip_id=clip.clip_id,
        video_id=clip.span.video_id,
        num_frames=clip.num_frames,
        duration_s=clip.duration_s,
        scores={"motion.px": number / 4},
        missing={},
        captions=(Caption(text=f"clip {number}", source="measured", scorer=MEASURED),),
        hashes=(),
        group_id=clip.clip_id,
        scorers={"motion": Scorer(name="flow", version="3", settings={})},
        bank_frames=(),
    )
