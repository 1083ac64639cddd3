"""The stage finetune-decoder: temporal layers for the autoencoder's decoder, the encoder frozen."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from svd.atomic import new_folder
from svd.config.decoder import DecoderStageConfig
from svd.data.frame_cache import CachedFrames, open_splits
from svd.data.frames import Frames
from svd.data.latents import load_autoencoder
from svd.errors import ConfigError
from svd.models.checkpoints.own_folder import TEMPORAL_DECODER_FILE, TEMPORAL_DECODER_SHA256
from svd.models.checkpoints.weights import save_weights
from svd.models.critics.lpips import load_lpips_network
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.runtime.fingerprint import file_sha256, path_identity, stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.training.pixels.crops import window_starts
from svd.training.pixels.decoder_fit import DecoderPupil, DecoderRow, Teachers
from svd.training.pixels.pictures import draw_rows, dropped_clips, psnr_db, to_pixels
from svd.training.pixels.solo_fit import SoloFit
from svd.types.artifact import ModelRecord, StageReport
from svd.types.base import write_records

if TYPE_CHECKING:
    from svd.config.params import Params

STAGE = "finetune-decoder"
_PREVIEW_COLUMNS = 8  # frames of one held-out clip in the preview


class Comparison(NamedTuple):
    """Mean over held-out frames of what each decoder makes of the same latents."""

    image_psnr_db: float
    temporal_psnr_db: float


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Train the temporal decoder on neighbouring frames of the kept training clips.

    A killed run resumes from its last checkpoint and ends in the same bytes. The folder that it
    leaves is an autoencoder's: the one that it was trained for, and the temporal decoder beside it.

    Raises:
        MissingInputError: A stage before has not run, or LPIPS' weights are not to be had.
        ConfigError: No training clip is long enough, or the GPU is not there.
        TrainingDivergedError: Loss or gradient is not finite.
    """
    config = params.finetune_decoder
    fingerprint = stage_fingerprint(workspace, STAGE)
    live = workspace.runs / fingerprint
    torch.set_num_threads(config.num_threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("finetune-decoder.device=cuda, but this machine has no GPU")
    autoencoder, base = load_autoencoder(workspace.model("autoencoder"))
    autoencoder = autoencoder.to(config.device).eval().requires_grad_(requires_grad=False)
    train, heldout, caches = open_splits(live, config.frames, workspace)
    if not window_starts(caches[0].lengths, config.training.num_frames):
        raise ConfigError(
            f"finetune-decoder.training.num_frames={config.training.num_frames}, but no training "
            f"clip has more than {max(caches[0].lengths)} frames at {config.frames.fps} per second"
        )
    teachers = _teachers(autoencoder, config, workspace)
    pupil = DecoderPupil(teachers, train, caches[0].lengths, config.training, seed=params.seed)
    course = SoloFit(pupil, config.training, live / "checkpoint.safetensors")
    course.run(description="training the temporal decoder", tracker=tracker)
    decoder = pupil.decoder.eval().requires_grad_(requires_grad=False)
    compared = compare(autoencoder, decoder, heldout, caches[1].lengths)
    shown = heldout[: min(_PREVIEW_COLUMNS, caches[1].lengths[0])]
    record = _publish(
        course, decoder, autoencoder, config, compared, base, shown, fingerprint, workspace
    )
    shutil.rmtree(live, ignore_errors=True)
    return _report(record, compared, caches, workspace, tracker)


@torch.no_grad()
def compare(
    autoencoder: Autoencoder, decoder: TemporalDecoder, heldout: Frames, lengths: Sequence[int]
) -> Comparison:
    """Measure the PSNR of held-out frames after both decoders, each clip decoded as a whole."""
    psnr: list[Float[Tensor, " n 2"]] = []
    for pixels in _clips(heldout, lengths, autoencoder.quant_conv.weight.device):
        latents = autoencoder.encode(pixels).mean
        decoded = (autoencoder.decode(latents), decoder.decode(latents, num_frames=len(latents)))
        psnr.append(torch.stack([psnr_db(made, pixels) for made in decoded], dim=1))
    image, temporal = torch.cat(psnr).double().mean(dim=0).tolist()
    return Comparison(image_psnr_db=image, temporal_psnr_db=temporal)


def _teachers(
    autoencoder: Autoencoder, config: DecoderStageConfig, workspace: Workspace
) -> Teachers:
    perceptual, scale = config.training.perceptual, autoencoder.config.latent_scale
    if perceptual is None:
        return Teachers(autoencoder, None, scale)
    network = load_lpips_network(workspace.state / "cache", perceptual.network)
    return Teachers(autoencoder, network.to(config.device), scale)


def _publish(
    course: SoloFit[DecoderRow],
    decoder: TemporalDecoder,
    autoencoder: Autoencoder,
    config: DecoderStageConfig,
    compared: Comparison,
    base: ModelRecord,
    shown: Frames,
    fingerprint: str,
    workspace: Workspace,
) -> ModelRecord:
    """Write the stage's out folder, complete or not at all."""
    out, source = workspace.model(STAGE), workspace.model("autoencoder")
    with new_folder(out) as partial:
        shutil.copyfile(source / "weights.safetensors", partial / "weights.safetensors")
        save_weights(decoder, partial / TEMPORAL_DECODER_FILE)
        write_records(partial / "history.jsonl", course.rows)
        draw_preview(autoencoder, decoder, shown, partial / "preview.jpg")
        section = json.dumps(config.model_dump(mode="json"), sort_keys=True)
        record = ModelRecord(
            stage=STAGE,
            kind="autoencoder",
            architecture=base.architecture,
            weights_sha256=base.weights_sha256,
            num_parameters=base.num_parameters + sum(p.numel() for p in decoder.parameters()),
            step=course.step,
            examples_seen=course.step * config.training.batch_size,
            params_fingerprint=hashlib.sha256(section.encode()).hexdigest(),
            dataset_fingerprint=path_identity(workspace.filtered / "verdicts.jsonl"),
            init_sha256=base.weights_sha256,
            run_fingerprint=fingerprint,
            extras=base.extras
            | {
                TEMPORAL_DECODER_SHA256: file_sha256(partial / TEMPORAL_DECODER_FILE),
                "heldout_psnr_db": round(compared.temporal_psnr_db, 4),
                "heldout_psnr_db_image_decoder": round(compared.image_psnr_db, 4),
            },
        )
        (partial / "model.json").write_text(record.canonical_json(), encoding="utf-8")
    return record


@torch.no_grad()
def draw_preview(
    autoencoder: Autoencoder, decoder: TemporalDecoder, shown: Frames, path: Path
) -> None:
    """Save a clip's frames above what the image decoder and the temporal one make of them."""
    pixels = to_pixels(shown).to(autoencoder.quant_conv.weight.device)
    latents = autoencoder.encode(pixels).mean
    made = (autoencoder.decode(latents), decoder.decode(latents, num_frames=len(latents)))
    draw_rows((pixels, *made), path)


def _report(
    record: ModelRecord,
    compared: Comparison,
    caches: tuple[CachedFrames, CachedFrames],
    workspace: Workspace,
    tracker: Tracker,
) -> StageReport:
    preview = workspace.model(STAGE) / "preview.jpg"
    tracker.log_media(f"{STAGE}/preview", preview)
    train, heldout = caches
    return StageReport(
        stage=STAGE,
        summary={
            "train clips": train.num_clips,
            "held-out clips": heldout.num_clips,
            "steps": record.step,
            "held-out PSNR (dB)": round(compared.temporal_psnr_db, 2),
            "held-out PSNR of the image decoder (dB)": round(compared.image_psnr_db, 2),
            "weights": str(record.extras[TEMPORAL_DECODER_SHA256]),
        },
        warnings=dropped_clips(caches),
        outputs=(str(preview.relative_to(workspace.root)),),
    )


def _clips(
    frames: Frames, lengths: Sequence[int], device: torch.device
) -> Iterator[Float[Tensor, "t 3 H W"]]:
    first = 0
    for length in lengths:
        yield to_pixels(frames[first : first + length]).to(device)
        first += length
