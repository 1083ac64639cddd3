"""What a stage is going to do: its job, checked against the data and the models it starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svd.config.base import Section
from svd.config.model import DenoiserConfig
from svd.config.training import TrainingStageConfig
from svd.errors import ConfigError, MissingInputError
from svd.runtime.fingerprint import file_sha256
from svd.runtime.workspace import Workspace
from svd.training.camera_subset import camera_subset
from svd.training.job import TrainingJob
from svd.training.traits import OBJECTIVES, TRAITS, Traits
from svd.types.camera import ADAPTERS
from svd.types.shard import ShardManifest
from svd.types.stage import TrainingStage

if TYPE_CHECKING:
    from svd.config.params import Params


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A job, and what its model's card will say beside it.

    Attributes:
        name: The run's fingerprint.
        job: What the ranks are given.
        manifest: The data set.
        init_sha256: Of the weights it starts from.
        context_encoder: Under the name of its role, the section of the encoder whose tokens the
            model attends to; samplers rebuild it from this.
    """

    name: str
    job: TrainingJob
    manifest: ShardManifest
    init_sha256: str | None
    context_encoder: dict[str, Section]


def plan_stage(
    stage: TrainingStage, params: "Params", workspace: Workspace, *, name: str
) -> StagePlan:
    """Return the plan of a stage.

    Raises:
        ConfigError: The recipe and the data set do not fit each other.
        IntegrityError: The manifest is not one.
        MissingInputError: An input is not there; the message says how to make it.
    """
    config = params.training(stage)
    objective = OBJECTIVES[stage]
    traits = TRAITS[objective]
    manifest, data = _find_data(stage, workspace, workspace.runs / name)
    denoiser = with_input_channels(params.denoiser, manifest.latent_channels, traits)
    if traits.has_mask:
        denoiser = _with_mask_embedding(denoiser, config, manifest)
    encoder = _context_encoder(stage, traits, config, params)
    _check_widths(denoiser, manifest, traits, encoder)
    init = _find_init(stage, config, workspace)
    decodes = config.samples is not None
    autoencoder = (
        _weights_of("autoencoder", workspace) if traits.encodes_pictures or decodes else None
    )
    job = TrainingJob(
        stage=stage,
        objective=objective,
        seed=params.seed,
        config=config,
        denoiser=denoiser,
        data=str(data.absolute()),
        autoencoder=None if autoencoder is None else str(autoencoder.parent),
        init=None if init is None else str(init),
        run=str((workspace.runs / name).absolute()),
    )
    return StagePlan(
        name=name,
        job=job,
        manifest=manifest,
        init_sha256=None if init is None else file_sha256(init),
        context_encoder=encoder,
    )


def _find_data(stage: TrainingStage, workspace: Workspace, run: Path) -> tuple[ShardManifest, Path]:
    """Return the data set of a stage and where it lies: all latents, or an adapter's part."""
    if not stage.startswith("lora@"):
        return _read_manifest(workspace), workspace.latents
    name = next(name for name in ADAPTERS if stage == f"lora@{name}")
    _read_manifest(workspace)
    return camera_subset(name, workspace, run / "data"), run / "data"


def _read_manifest(workspace: Workspace) -> ShardManifest:
    path = workspace.latents / "manifest.json"
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `svd encode` first")
    return ShardManifest.parse(path.read_text(encoding="utf-8"), origin=str(path))


def _weights_of(stage: str, workspace: Workspace) -> Path:
    path = workspace.model(stage).absolute() / "weights.safetensors"
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `svd {stage}` first")
    return path


def _find_init(
    stage: TrainingStage, config: TrainingStageConfig, workspace: Workspace
) -> Path | None:
    if config.init_stage is not None:
        return _weights_of(config.init_stage, workspace)
    if config.init_file is None:
        return None
    path = (workspace.root / config.init_file).absolute()
    if not path.is_file():
        raise MissingInputError(f"{stage}.init={config.init}: {path} is not there")
    return path


def with_input_channels(
    denoiser: DenoiserConfig, latent_channels: int, traits: Traits
) -> DenoiserConfig:
    """Return the architecture with the noisy latents' channels, and the condition's if any."""
    channels = latent_channels * (1 + traits.cond_latents) + traits.has_mask
    unet = denoiser.unet.model_copy(update={"in_channels": channels})
    return denoiser.model_copy(update={"unet": unet})


def _with_mask_embedding(
    denoiser: DenoiserConfig, config: TrainingStageConfig, manifest: ShardManifest
) -> DenoiserConfig:
    """Return the architecture with an embedding of unknown frames, of the phases' picture size."""
    sizes = {(phase.data.height, phase.data.width) for phase in config.phases}
    if config.mask_embedding == "per-channel":
        height, width = 1, 1
    elif len(sizes) > 1:
        raise ConfigError(
            "mask_embedding=per-position needs phases of one picture size; there are: "
            + ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        )
    else:
        height, width = (side // manifest.latent_downscale for side in sizes.pop())
    shape = (manifest.latent_channels, height, width)
    unet = denoiser.unet.model_copy(update={"mask_embedding": shape})
    return denoiser.model_copy(update={"unet": unet})


def _context_encoder(
    stage: TrainingStage, traits: Traits, config: TrainingStageConfig, params: "Params"
) -> dict[str, Section]:
    if traits.context != "captions":
        return {"image_encoder": params.encode.image_encoder}
    if config.text_encoder is None:
        raise ConfigError(f"{stage}.text_encoder is missing: the captions need one")
    return {"text_encoder": config.text_encoder}


def _check_widths(
    denoiser: DenoiserConfig,
    manifest: ShardManifest,
    traits: Traits,
    encoder: dict[str, Section],
) -> None:
    unet = denoiser.unet
    if unet.out_channels != manifest.latent_channels:
        raise ConfigError(
            f"denoiser.unet.out_channels={unet.out_channels}, but the latents of the data set "
            f"have {manifest.latent_channels} channels"
        )
    if traits.context != "captions" and unet.context_dim != manifest.embed_dim:
        raise ConfigError(
            f"denoiser.unet.context_dim={unet.context_dim}, but the image embeddings of the data "
            f"set have {manifest.embed_dim} numbers"
        )
    text = encoder.get("text_encoder")
    if text is not None and text.model_dump()["kind"] == "tiny":
        width = text.model_dump()["width"]
        if unet.context_dim != width:
            raise ConfigError(
                f"denoiser.unet.context_dim={unet.context_dim}, but text_encoder.width={width}"
            )
