"""The part of the denoiser that DeepSpeed trains: the raw output F of the UNet."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.model import CheckpointPolicy, DenoiserConfig
from svd.errors import ConfigError
from svd.models.checkpoints.start import start_unet
from svd.models.checkpoints.weights import load_weights
from svd.models.networks.denoiser import Denoiser
from svd.models.networks.tower import seeded
from svd.training.checkpoints.partition import Partition
from svd.training.objective.adapter import attach_adapter
from svd.training.stage.job import RunFolder, TrainingJob
from svd.types.batch import Conditioning

PREFIX = "denoiser.unet."  # of parameter names here; files hold them without it


class RawNetwork(nn.Module):
    """Calls `Denoiser.network_output` as its forward, which is where ZeRO hooks in."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        noisy_latents: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, " b"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "b t c h w"]:
        """Return F; stills pass the spatial layers alone."""
        self.denoiser.unet.spatial_only = noisy_latents.shape[1] == 1
        return self.denoiser.network_output(noisy_latents, sigma, conditioning)


def build_network(
    config: DenoiserConfig,
    *,
    seed: int,
    init: Path | None,
    is_own: bool,
    activation_checkpointing: CheckpointPolicy,
) -> RawNetwork:
    """Return the network with the weights that a phase starts from.

    Args:
        config: What to build.
        seed: Of random weights.
        init: Weights to start from; None leaves them random.
        is_own: Whether `init` is from an earlier phase of this stage and must fit exactly; weights
            of an earlier stage may lack temporal layers or input channels.
        activation_checkpointing: What the backward pass recomputes.

    Raises:
        CheckpointError: The weights do not fit.
        ConfigError: The preconditioning is not the one the loss is written for.
        MissingInputError: There is no such file.
    """
    if config.preconditioning != "edm-v":
        raise ConfigError(
            f"denoiser.preconditioning={config.preconditioning} cannot be trained: stage I moves "
            "the model to edm-v, which all stages train"
        )
    with seeded(seed):
        denoiser = Denoiser(config)
    if init is not None and is_own:
        load_weights(denoiser.unet, init)
    elif init is not None:
        start_unet(denoiser.unet, init)
    denoiser.unet.set_checkpointing(activation_checkpointing)
    return RawNetwork(denoiser)


def build_phase_network(job: TrainingJob, index: int) -> RawNetwork:
    """Return the network with the weights that a phase of a job starts from.

    Raises:
        CheckpointError: The weights do not fit.
        ConfigError: See `build_network`.
        MissingInputError: The phase before is not finished.
    """
    config = job.config
    place = config.phase_before(index)
    before = None
    if place is not None:
        before = RunFolder(Path(job.run)).phase_weights(place, config.phases[place].name)
    start = Path(job.init) if job.init else None
    is_whole = config.adapter is None  # a phase of an adapter leaves the adapter alone
    network = build_network(
        job.denoiser,
        seed=job.seed,
        init=(is_whole and before) or start,
        is_own=before is not None or not is_whole,
        activation_checkpointing=config.compute.activation_checkpointing,
    )
    if config.adapter is not None:
        attach_adapter(network.denoiser.unet, config.adapter, seed=job.seed, before=before)
    if config.compute.compile_blocks:
        network.denoiser.unet.compile_blocks()
    return network


def gather_weights(
    partition: Partition, flats: Sequence[Tensor], *, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Put the trained weights together on rank 0, under the UNet's own names; nothing elsewhere.

    All ranks must call this.
    """
    weights = {}
    for name, whole in partition.gather(flats):
        if dist.get_rank() == 0:
            weights[name.removeprefix(PREFIX)] = whole.to("cpu", dtype)
    return weights
