"""The objective of a job, with the frozen networks that its conditioning needs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from svd.config.model import AutoencoderConfig
from svd.config.training import PhaseConfig
from svd.errors import ConfigError
from svd.models.checkpoints.weights import load_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.tower import freeze
from svd.training.objective.objectives import (
    ImageToVideo,
    Interpolation,
    Objective,
    Orbit,
    TextToVideo,
)
from svd.training.stage.job import ObjectiveName, TrainingJob
from svd.types.artifact import ModelRecord
from svd.types.shard import ShardManifest

ForPhase = Callable[[PhaseConfig], Objective]
_Builder = Callable[[TrainingJob, ShardManifest, torch.device], ForPhase]


def objective_builder(job: TrainingJob, manifest: ShardManifest, device: torch.device) -> ForPhase:
    """Load what the objective needs once; return what builds it for a phase.

    Raises:
        CheckpointError: A frozen network's weights do not fit.
        ConfigError: The job lacks what the objective needs.
        MissingInputError: A file of weights is not there.
    """
    return _BUILDERS[job.objective](job, manifest, device)


def _text_to_video(job: TrainingJob, _manifest: ShardManifest, device: torch.device) -> ForPhase:
    if job.config.text_encoder is None:
        raise ConfigError(f"{job.stage}.text_encoder is missing: captions need one")
    # open_clip takes seconds to import; stages without text do without it.
    from svd.models.networks.text_encoder import TextEncoder

    encoder = TextEncoder(job.config.text_encoder).to(device)
    width = job.denoiser.unet.added_id_dim
    return lambda phase: TextToVideo(phase, text_encoder=encoder, id_width=width)


def _image_to_video(job: TrainingJob, _manifest: ShardManifest, device: torch.device) -> ForPhase:
    autoencoder = load_frozen_autoencoder(job).to(device)
    width = job.denoiser.unet.added_id_dim
    return lambda phase: ImageToVideo(phase, autoencoder=autoencoder, id_width=width)


def _orbit(job: TrainingJob, _manifest: ShardManifest, device: torch.device) -> ForPhase:
    autoencoder = load_frozen_autoencoder(job).to(device)
    width, pose = job.denoiser.unet.added_id_dim, job.config.pose
    return lambda phase: Orbit(phase, autoencoder=autoencoder, id_width=width, pose=pose)


def _interpolation(job: TrainingJob, manifest: ShardManifest, _device: torch.device) -> ForPhase:
    width, scale = job.denoiser.unet.added_id_dim, manifest.latent_scale
    return lambda phase: Interpolation(phase, latent_scale=scale, id_width=width)


def load_frozen_autoencoder(job: TrainingJob) -> Autoencoder:
    """Load the autoencoder that a job names.

    Raises:
        CheckpointError: Its weights do not fit.
        ConfigError: The job names none.
    """
    if job.autoencoder is None:
        raise ConfigError(f"{job.stage} needs an autoencoder, and its job names none")
    folder = Path(job.autoencoder)
    card = folder / "model.json"
    record = ModelRecord.parse(card.read_text(encoding="utf-8"), origin=str(card))
    autoencoder = Autoencoder(
        AutoencoderConfig.model_validate_json(json.dumps(record.architecture))
    )
    load_weights(autoencoder, folder / "weights.safetensors")
    freeze(autoencoder)
    return autoencoder


_BUILDERS: Final[dict[ObjectiveName, _Builder]] = {
    "text-to-video": _text_to_video,
    "image-to-video": _image_to_video,
    "interpolation": _interpolation,
    "orbit": _orbit,
}
