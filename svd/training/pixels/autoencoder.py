"""The stage autoencoder: the KL autoencoder that encode uses and that samples are decoded with."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from svd.atomic import new_folder
from svd.config.autoencoder import AutoencoderStageConfig
from svd.data.frame_cache import CachedFrames, open_splits
from svd.data.frames import Frames
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.runtime.fingerprint import file_sha256, path_identity, stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.training.pixels.autoencoder_fit import AutoencoderPupil, AutoencoderRow
from svd.training.pixels.autoencoder_init import fetch_initial, load_initial, new_autoencoder
from svd.training.pixels.pictures import draw_rows, dropped_clips, psnr_db, to_pixels
from svd.training.pixels.solo_fit import SoloFit
from svd.types.artifact import ModelRecord, StageReport
from svd.types.base import write_records

if TYPE_CHECKING:
    from svd.config.params import Params

_FRAMES_AT_ONCE = 16  # in one pass of a measurement; memory only
_NUM_PREVIEW = 8  # held-out frames in the preview


class Quality(NamedTuple):
    """What the finished autoencoder does to pictures."""

    heldout_psnr_db: float  # mean over held-out frames, of the decoded mode
    latent_std: float  # over the training frames' posteriors, all channels together


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Train the autoencoder on frames of the kept training clips, or import one.

    A killed run resumes from its last checkpoint and ends in the same bytes.

    Raises:
        MissingInputError: A stage before has not run, or the initial weights are not there.
        ConfigError: A split has no frame.
        CheckpointError: Initial weights do not fit.
        TrainingDivergedError: Loss or gradient is not finite.
    """
    config = params.autoencoder
    fingerprint = stage_fingerprint(workspace, "autoencoder")
    live = workspace.runs / fingerprint
    torch.set_num_threads(config.num_threads)
    train, heldout, caches = open_splits(live, config.frames, workspace)
    autoencoder = new_autoencoder(
        config.model, seed=params.seed, initial_logvar=config.training.initial_logvar
    )
    init = None
    if config.init is not None:
        init = fetch_initial(config.init, root=workspace.root, folder=live)
        load_initial(autoencoder, init)
    pupil = AutoencoderPupil(autoencoder, train, config.training, seed=params.seed)
    course = SoloFit(pupil, config.training, live / "checkpoint.safetensors")
    course.run(description="training the autoencoder", tracker=tracker)
    autoencoder.requires_grad_(requires_grad=False)
    quality = measure(autoencoder, train, heldout)
    record = _publish(course, autoencoder, config, quality, heldout, init, fingerprint, workspace)
    shutil.rmtree(live, ignore_errors=True)
    return _report(record, quality, caches, workspace, tracker)


@torch.no_grad()
def measure(autoencoder: Autoencoder, train: Frames, heldout: Frames) -> Quality:
    """Measure the held-out PSNR and the spread of the training latents."""
    psnr = [
        psnr_db(autoencoder.decode(autoencoder.encode(pixels).mean), pixels)
        for pixels in _batches(heldout)
    ]
    first = second = count = 0.0
    for pixels in _batches(train):
        mean, logvar = autoencoder.encode(pixels)
        first += float(mean.double().sum())
        second += float((mean.double() ** 2 + logvar.double().exp()).sum())
        count += mean.numel()
    std = (second / count - (first / count) ** 2) ** 0.5
    return Quality(heldout_psnr_db=float(torch.cat(psnr).double().mean()), latent_std=std)


@torch.no_grad()
def draw_preview(autoencoder: Autoencoder, heldout: Frames, path: Path) -> None:
    """Save held-out frames above their reconstructions as one JPEG."""
    places = np.linspace(0, len(heldout) - 1, min(_NUM_PREVIEW, len(heldout))).round().astype(int)
    pixels = to_pixels(heldout[places])
    draw_rows((pixels, autoencoder.decode(autoencoder.encode(pixels).mean)), path)


def _publish(
    course: SoloFit[AutoencoderRow],
    autoencoder: Autoencoder,
    config: AutoencoderStageConfig,
    quality: Quality,
    heldout: Frames,
    init: Path | None,
    fingerprint: str,
    workspace: Workspace,
) -> ModelRecord:
    """Write the stage's out folder, complete or not at all."""
    out = workspace.model("autoencoder")
    with new_folder(out) as partial:
        save_weights(autoencoder, partial / "weights.safetensors")
        write_records(partial / "history.jsonl", course.rows)
        draw_preview(autoencoder, heldout, partial / "preview.jpg")
        is_measured = config.latent_scale == "measured"
        scale = 1 / quality.latent_std if is_measured else config.model.latent_scale
        section = json.dumps(config.model_dump(mode="json"), sort_keys=True)
        record = ModelRecord(
            stage="autoencoder",
            kind="autoencoder",
            architecture=config.model.model_dump(mode="json") | {"latent_scale": scale},
            weights_sha256=file_sha256(partial / "weights.safetensors"),
            num_parameters=sum(p.numel() for p in autoencoder.parameters()),
            step=course.step,
            examples_seen=course.step * config.training.batch_size,
            params_fingerprint=hashlib.sha256(section.encode()).hexdigest(),
            dataset_fingerprint=path_identity(workspace.filtered / "verdicts.jsonl"),
            init_sha256=None if init is None else file_sha256(init),
            run_fingerprint=fingerprint,
            extras={
                "latent_scale": scale,
                "heldout_psnr_db": round(quality.heldout_psnr_db, 4),
                "height": config.frames.size.height,
                "width": config.frames.size.width,
            },
        )
        (partial / "model.json").write_text(record.canonical_json(), encoding="utf-8")
    return record


def _report(
    record: ModelRecord,
    quality: Quality,
    caches: tuple[CachedFrames, CachedFrames],
    workspace: Workspace,
    tracker: Tracker,
) -> StageReport:
    preview = workspace.model("autoencoder") / "preview.jpg"
    tracker.log_media("autoencoder/preview", preview)
    train, heldout = caches
    return StageReport(
        stage="autoencoder",
        summary={
            "train frames": train.num_frames,
            "held-out frames": heldout.num_frames,
            "steps": record.step,
            "parameters": record.num_parameters,
            "held-out PSNR (dB)": round(quality.heldout_psnr_db, 2),
            "latent std": round(quality.latent_std, 4),
            "weights": record.weights_sha256,
        },
        warnings=dropped_clips(caches),
        outputs=(str(preview.relative_to(workspace.root)),),
    )


def _batches(frames: Frames) -> Iterator[Float[Tensor, "n 3 H W"]]:
    starts = range(0, len(frames), _FRAMES_AT_ONCE)
    return (to_pixels(frames[first : first + _FRAMES_AT_ONCE]) for first in starts)
