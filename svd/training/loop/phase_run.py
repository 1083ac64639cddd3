"""What a phase needs to run, and the tensors of its live state."""

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from svd.config.training import PhaseConfig, TrainingStageConfig
from svd.data.stream.quarantine import Quarantine
from svd.training.checkpoints.ema import ShardedEma
from svd.training.checkpoints.power_ema import PowerEma
from svd.training.checkpoints.saver import Checkpoints
from svd.training.loop.engine import Engine
from svd.training.loop.history import RowFile
from svd.training.loop.ledger import Ledger
from svd.training.loop.pace import Work
from svd.training.loop.samples import Sampler
from svd.training.loop.stop import StopRequest
from svd.training.loop.validation import Validator
from svd.training.objective.objectives import Objective
from svd.training.stage.job import RunFolder


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
        history: What was learned, row by row; rank 0 writes it.
        speed: What the clock says, likewise.
    """

    index: int
    config: PhaseConfig
    stage: TrainingStageConfig
    stage_name: str
    first_step: int
    seed: int
    latent_scale: float
    folder: RunFolder
    history: RowFile
    speed: RowFile
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
