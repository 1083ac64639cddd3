"""What a phase needs to run, and the tensors of its live state."""

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from svd.config.training import PhaseConfig, TrainingStageConfig
from svd.data.quarantine import Quarantine
from svd.training.ema import ShardedEma
from svd.training.engine import Engine
from svd.training.job import RunFolder
from svd.training.ledger import Ledger
from svd.training.objectives import Objective
from svd.training.pace import Work
from svd.training.power_ema import PowerEma
from svd.training.samples import Sampler
from svd.training.saver import Checkpoints
from svd.training.stop import StopRequest
from svd.training.validation import Validator


@dataclass(frozen=True, slots=True)
class PhaseRun:
    """A phase, ready to run.

    Attributes:
        index: Place of the phase in its stage.
        config: The phase.
        stage: The stage it belongs to.
        stage_name: For logs.
        first_step: Optimizer steps of the phases before.
        seed: The recipe's.
        latent_scale: Of the diffused latents.
    """

    index: int
    config: PhaseConfig
    stage: TrainingStageConfig
    stage_name: str
    first_step: int
    seed: int
    latent_scale: float
    folder: RunFolder
    engine: Engine
    ema: ShardedEma
    power_ema: PowerEma | None
    objective: Objective
    validator: Validator
    sampler: Sampler | None
    checkpoints: Checkpoints
    quarantine: Quarantine
    work: Work
    stop: StopRequest
    ledger: Ledger

    @property
    def peak(self) -> float:
        """FLOP/s of all ranks together."""
        return self.work.peak * dist.get_world_size()


def phase_shards(
    engine: Engine, ema: ShardedEma, power_ema: PowerEma | None
) -> dict[str, list[Tensor]]:
    """Return every tensor of live state, as lists parallel to the engine's masters."""
    averages = {} if power_ema is None else power_ema.flats
    return {
        "master": engine.masters,
        "ema": ema.flats,
        **{f"power-ema-{std:g}": flats for std, flats in averages.items()},
        **engine.moments(),
    }
