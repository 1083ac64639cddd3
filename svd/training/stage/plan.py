"""What a stage is going to do: its job, checked against the data and the models it starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svd.config.base import Section
from svd.config.model import DenoiserConfig
from svd.config.training import TrainingStageConfig
from svd.data.stream.copies import check_copy
from svd.errors import ConfigError, MissingInputError
from svd.runtime.cost import VARIABLE, price_per_device_hour
from svd.runtime.fingerprint import file_sha256
from svd.runtime.workspace import Workspace
from svd.training.objective.traits import OBJECTIVES, TRAITS, Traits
from svd.training.stage.camera_subset import camera_subset
from svd.training.stage.job import TrainingJob
from svd.types.budget import Budget
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
    if config.compute.data_store is not None:
        _check_copy(stage, manifest, config.compute.data_store)
    denoiser = stage_denoiser(
        stage,
        params,
        latent_channels=manifest.latent_channels,
        latent_downscale=manifest.latent_downscale,
    )
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
        data=config.compute.data_store or str(data.absolute()),
        autoencoder=None if autoencoder is None else str(autoencoder.parent),
        init=None if init is None else str(init),
        run=str((workspace.runs / name).absolute()),
        budget=_budget(stage, config),
    )
    return StagePlan(
        name=name,
        job=job,
        manifest=manifest,
        init_sha256=None if init is None else file_sha256(init),
        context_encoder=encoder,
    )


def _budget(stage: TrainingStage, config: TrainingStageConfig) -> Budget | None:
    amount = config.compute.budget
    if amount is None:
        return None
    price = price_per_device_hour(config.compute.price_per_device_hour)
    section = stage.partition("@")[0]
    if not price:
        raise ConfigError(
            f"{section}.compute.budget={amount:g} needs a price above 0: set "
            f"{section}.compute.price_per_device_hour or {VARIABLE}"
        )
    return Budget(amount=amount, price_per_device_hour=price)


def _find_data(stage: TrainingStage, workspace: Workspace, run: Path) -> tuple[ShardManifest, Path]:
    """Return the data set of a stage and where it lies: all latents, an adapter's part, orbits."""
    if stage.startswith("finetune-multiview@"):
        return _read_manifest(workspace.orbit_latents, "encode-orbits"), workspace.orbit_latents
    if not stage.startswith("lora@"):
        return _read_manifest(workspace.latents, "encode"), workspace.latents
    name = next(name for name in ADAPTERS if stage == f"lora@{name}")
    _read_manifest(workspace.latents, "encode")
    return camera_subset(name, workspace, run / "data"), run / "data"


def _check_copy(stage: TrainingStage, manifest: ShardManifest, uri: str) -> None:
    section = stage.partition("@")[0]
    if section in {"lora", "finetune-multiview"}:
        raise ConfigError(
            f"{section}.compute.data_store={uri}: this stage reads a data set of its own, which is "
            "small and on this machine's disk; leave the key out"
        )
    check_copy(manifest, uri)


def _read_manifest(folder: Path, maker: str) -> ShardManifest:
    path = folder / "manifest.json"
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `svd {maker}` first")
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


def stage_denoiser(
    stage: TrainingStage, params: "Params", *, latent_channels: int, latent_downscale: int
) -> DenoiserConfig:
    """Return the architecture with the input channels, and the embedding, of a stage's objective.

    Args:
        stage: Which.
        params: The recipe.
        latent_channels: Of the noisy latents.
        latent_downscale: Pixels per latent along one side.

    Raises:
        ConfigError: The phases' picture sizes do not fit the mask embedding.
    """
    traits, config = TRAITS[OBJECTIVES[stage]], params.training(stage)
    channels = latent_channels * (1 + traits.cond_latents) + traits.has_mask
    update: dict[str, object] = {"in_channels": channels}
    if traits.has_mask:
        height, width = _mask_size(config, latent_downscale)
        update["mask_embedding"] = (latent_channels, height, width)
    if config.pose:
        own = params.denoiser.unet
        update["added_cond_dim"] = own.added_cond_dim + len(config.pose) * own.added_id_dim
    unet = params.denoiser.unet.model_copy(update=update)
    return params.denoiser.model_copy(update={"unet": unet})


def _mask_size(config: TrainingStageConfig, latent_downscale: int) -> tuple[int, int]:
    """Return the size of the latents that stand in for unknown frames."""
    if config.mask_embedding == "per-channel":
        return 1, 1
    sizes = {(phase.data.height, phase.data.width) for phase in config.phases}
    if len(sizes) > 1:
        raise ConfigError(
            "mask_embedding=per-position needs phases of one picture size; there are: "
            + ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        )
    height, width = sizes.pop()
    return height // latent_downscale, width // latent_downscale


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
