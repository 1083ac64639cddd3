"""The stage autoencoder: the KL autoencoder that encode uses and that samples are decoded with."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from svd.config.autoencoder import AutoencoderStageConfig
from svd.data.frame_cache import CachedFrames, open_splits
from svd.data.frames import Frames
from svd.models.autoencoder import Autoencoder
from svd.models.weights import save_weights
from svd.runtime.fingerprint import file_sha256, path_identity, stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.training.autoencoder_fit import FitRow, FitState, fit, load_fit, start
from svd.training.autoencoder_init import fetch_initial, load_initial, new_autoencoder
from svd.types.artifact import ModelRecord, StageReport
from svd.types.base import write_records

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)
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
    state = start(autoencoder)
    _train(state, train, config, seed=params.seed, live=live, tracker=tracker)
    quality = measure(state.autoencoder, train, heldout)
    record = _publish(state, config, quality, heldout, init, fingerprint, workspace)
    shutil.rmtree(live, ignore_errors=True)
    return _report(record, quality, caches, workspace, tracker)


@torch.no_grad()
def measure(autoencoder: Autoencoder, train: Frames, heldout: Frames) -> Quality:
    """Measure the held-out PSNR and the spread of the training latents."""
    errors = [
        ((autoencoder.decode(autoencoder.encode(pixels).mean).clamp(-1, 1) - pixels) ** 2)
        .flatten(1)
        .mean(1)
        for pixels in _batches(heldout)
    ]
    psnr = 10 * torch.log10(4 / torch.cat(errors).clamp_min(1e-10))  # pixels span 2
    first = second = count = 0.0
    for pixels in _batches(train):
        mean, logvar = autoencoder.encode(pixels)
        first += float(mean.double().sum())
        second += float((mean.double() ** 2 + logvar.double().exp()).sum())
        count += mean.numel()
    std = (second / count - (first / count) ** 2) ** 0.5
    return Quality(heldout_psnr_db=float(psnr.double().mean()), latent_std=std)


@torch.no_grad()
def draw_preview(autoencoder: Autoencoder, heldout: Frames, path: Path) -> None:
    """Save held-out frames above their reconstructions as one JPEG."""
    places = np.linspace(0, len(heldout) - 1, min(_NUM_PREVIEW, len(heldout))).round().astype(int)
    pixels = _pixels(heldout[places])
    decoded = autoencoder.decode(autoencoder.encode(pixels).mean).clamp(-1, 1)
    rows = [torch.cat(list(part), dim=2) for part in (pixels, decoded)]
    picture = ((torch.cat(rows, dim=1) + 1) * 127.5).round().to(torch.uint8)
    bgr = picture.numpy()[::-1].transpose(1, 2, 0)
    cv2.imwrite(str(path), np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, 95])


def _train(
    state: FitState,
    frames: Frames,
    config: AutoencoderStageConfig,
    *,
    seed: int,
    live: Path,
    tracker: Tracker,
) -> None:
    """Train, from the last checkpoint if there is one, and leave the average in the module."""
    checkpoint = live / "checkpoint.safetensors"
    if checkpoint.is_file():
        load_fit(state, checkpoint)
        logger.info("resumed from a checkpoint", extra={"step": state.step})

    def tell(row: FitRow) -> None:
        values = {"loss": row.loss, "l1": row.l1, "kl": row.kl, "lr": row.lr}
        tracker.log(values | {"grad_norm": row.grad_norm}, step=row.step)

    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    try:
        fit(state, frames, config.training, seed=seed, checkpoint=checkpoint, on_row=tell)
    finally:
        torch.use_deterministic_algorithms(mode=was_deterministic)
    with torch.no_grad():
        for name, parameter in state.autoencoder.named_parameters():
            parameter.copy_(state.ema[name])
    state.autoencoder.requires_grad_(requires_grad=False)


def _publish(
    state: FitState,
    config: AutoencoderStageConfig,
    quality: Quality,
    heldout: Frames,
    init: Path | None,
    fingerprint: str,
    workspace: Workspace,
) -> ModelRecord:
    """Write the stage's out folder, complete or not at all."""
    out = workspace.model("autoencoder")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_weights(state.autoencoder, partial / "weights.safetensors")
    write_records(partial / "history.jsonl", state.rows)
    draw_preview(state.autoencoder, heldout, partial / "preview.jpg")
    is_measured = config.latent_scale == "measured"
    scale = 1 / quality.latent_std if is_measured else config.model.latent_scale
    section = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    record = ModelRecord(
        stage="autoencoder",
        kind="autoencoder",
        architecture=config.model.model_dump(mode="json") | {"latent_scale": scale},
        weights_sha256=file_sha256(partial / "weights.safetensors"),
        num_parameters=sum(p.numel() for p in state.autoencoder.parameters()),
        step=state.step,
        examples_seen=state.step * config.training.batch_size,
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
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
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
        warnings=tuple(
            f"clip {clip.clip_id} gave no frames: {clip.reason}: {clip.detail}"
            for cache in caches
            for clip in cache.dropped
        ),
        outputs=(str(preview.relative_to(workspace.root)),),
    )


def _batches(frames: Frames) -> Iterator[Float[Tensor, "n 3 H W"]]:
    starts = range(0, len(frames), _FRAMES_AT_ONCE)
    return (_pixels(frames[first : first + _FRAMES_AT_ONCE]) for first in starts)


def _pixels(frames: Frames) -> Float[Tensor, "n 3 H W"]:
    return torch.from_numpy(np.array(frames)).float() / 127.5 - 1
