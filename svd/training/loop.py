"""The training loop: one, for every objective, stage and phase."""

import logging
import math
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from svd.config.training import PhaseConfig, TrainingStageConfig
from svd.errors import TrainingDivergedError
from svd.runtime.progress import track
from svd.training.checkpoint import Checkpoints, PhaseState
from svd.training.ema import ShardedEma
from svd.training.engine import Engine
from svd.training.history import append_row
from svd.training.job import HistoryRow, RunFolder, SpeedRow
from svd.training.loss import LossParts, denoising_loss
from svd.training.noise import DrawKey, Purpose, draw_sigma
from svd.training.objectives import Objective, sample_latents
from svd.training.optim import lr_at
from svd.training.ranks import gather_rows
from svd.training.validation import Validator
from svd.types.batch import LatentBatch
from svd.types.shard import StreamPosition

logger = logging.getLogger(__name__)
_NUM_NAMED = 8  # offending examples named in an error


@runtime_checkable
class StopRequest(Protocol):
    """Whether this rank was asked to save and end."""

    @property
    def asked(self) -> bool:
        """Looked at once per step."""


class SignalledStop:
    """SIGTERM asks, as schedulers and spot instances do."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        self.asked = True


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
    objective: Objective
    validator: Validator
    checkpoints: Checkpoints
    stop: StopRequest


class StepReport(NamedTuple):
    """What all ranks know of a step before its update."""

    losses: list[float]  # of the global batch, in its order
    sigmas: list[float]  # likewise
    stop_asked: bool  # of any rank

    @property
    def is_finite(self) -> bool:
        """Whether every loss is a number."""
        return all(math.isfinite(loss) for loss in self.losses)


@dataclass(slots=True)
class Stopwatch:
    """Time spent in steps and, within them, in waiting for data, since the last row."""

    steps: int = 0
    busy_s: float = 0.0
    waiting_s: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        """Begin a step."""
        self._started = time.perf_counter()

    def data_arrived(self) -> None:
        """Note that the batch is there."""
        self.waiting_s += time.perf_counter() - self._started

    def stop(self) -> None:
        """End a step."""
        self.steps += 1
        self.busy_s += time.perf_counter() - self._started

    def row(self, step: int, batch_size: int, device: torch.device) -> SpeedRow:
        """Return what was measured."""
        return SpeedRow(
            step=step,
            examples_per_s=self.steps * batch_size / self.busy_s,
            step_s=self.busy_s / self.steps,
            data_wait_share=self.waiting_s / self.busy_s,
            peak_memory_bytes=_peak_memory(device),
        )


def train_phase(
    run: PhaseRun, state: PhaseState, batches: Iterator[tuple[LatentBatch, StreamPosition]]
) -> tuple[PhaseState, bool]:
    """Train from a state to the end of the phase, or until asked to stop.

    Returns:
        The state reached, and whether it is the end of the phase. If it is not, it was saved.

    Raises:
        TrainingDivergedError: Loss or gradient is not finite; the weights are as they were before
            the step.
    """
    config = run.config
    watch = Stopwatch()
    for step in _steps(run, state.step):
        watch.start()
        batch, position = next(batches)
        watch.data_arrived()
        report = _accumulate(run, batch)
        norm = run.engine.update(lr_at(config, step)) if report.is_finite else math.nan
        if not math.isfinite(norm):
            raise _divergence(run, step, batch, report)
        run.ema.update()
        watch.stop()
        state = PhaseState(
            step=step + 1,
            examples_seen=state.examples_seen + config.data.batch_size,
            position=position,
            window=state.window.add(report.losses, report.sigmas),
        )
        is_last = state.step == config.num_steps
        validates = is_last or state.step % run.stage.validation.every_steps == 0
        if validates or state.step % run.stage.log_every_steps == 0:
            state = _log(run, state, norm, watch, validates=validates)
            watch = Stopwatch()
        if not is_last and (
            report.stop_asked or state.step % run.stage.checkpoint.every_steps == 0
        ):
            run.checkpoints.save(state, run.engine.partition, phase_shards(run.engine, run.ema))
        if report.stop_asked and not is_last:
            return state, False
    return state, True


def phase_shards(engine: Engine, ema: ShardedEma) -> dict[str, list[Tensor]]:
    """Return every tensor of live state, as lists parallel to the engine's masters."""
    return {"master": engine.masters, "ema": ema.flats, **engine.moments()}


def _steps(run: PhaseRun, start: int) -> Iterator[int]:
    steps = range(start, run.config.num_steps)
    if dist.get_rank() > 0:
        return iter(steps)
    description = f"{run.stage_name} {run.config.name}"
    return track(steps, total=len(steps), description=description, unit="steps")


def _accumulate(run: PhaseRun, batch: LatentBatch) -> StepReport:
    """Add up the gradient of this rank's part of the batch; tell and hear the losses."""
    size = run.config.micro_batch_size
    parts = []
    for start in range(0, len(batch), size):
        micro = batch.part(start, start + size).to(run.engine.device)
        part = _loss(run, micro)
        run.engine.backward(part.loss, is_last=start + size == len(batch))
        parts.append(part)
    losses = torch.cat([part.per_example for part in parts])
    sigmas = torch.cat([part.sigma for part in parts])
    flag = losses.new_tensor([float(run.stop.asked)])
    rows = gather_rows(torch.cat([losses, sigmas, flag]), run.engine.device)
    return StepReport(
        losses=rows[:, : len(batch)].flatten().tolist(),
        sigmas=rows[:, len(batch) : -1].flatten().tolist(),
        stop_asked=bool(rows[:, -1].any()),
    )


def _loss(run: PhaseRun, batch: LatentBatch) -> LossParts:
    key = DrawKey(run.seed, run.index, batch.positions)
    latents = sample_latents(batch, key, latent_scale=run.latent_scale)
    noise = key.normal(Purpose.NOISE, tuple(latents.shape[1:])).to(latents.device)
    return denoising_loss(
        run.engine,
        latents=latents,
        noise=noise,
        sigma=draw_sigma(run.config.noise, key).to(latents.device),
        conditioning=run.objective.condition(batch, key, dropout=True),
    )


def _log(
    run: PhaseRun, state: PhaseState, norm: float, watch: Stopwatch, *, validates: bool
) -> PhaseState:
    """Write a row of each file, and begin a new window."""
    step = run.first_step + state.step
    heldout: dict[str, float] = {}
    if validates:
        with run.engine.weights_from(run.ema.flats):
            heldout = run.validator.run(run.engine)
    row = HistoryRow(
        step=step,
        phase=run.config.name,
        examples_seen=state.examples_seen,
        loss=state.window.mean,
        loss_by_sigma=state.window.by_sigma(),
        grad_norm=norm,
        lr=lr_at(run.config, state.step - 1),
        heldout_loss=sum(heldout.values()) / len(heldout) if heldout else None,
        heldout_loss_by_sigma=heldout,
    )
    speed = watch.row(step, run.config.data.batch_size, run.engine.device)
    if dist.get_rank() == 0:
        append_row(run.folder.history, row)
        append_row(run.folder.speed, speed)
        _say(row, speed)
    return PhaseState(step=state.step, examples_seen=state.examples_seen, position=state.position)


def _say(row: HistoryRow, speed: SpeedRow) -> None:
    heldout = {} if row.heldout_loss is None else {"heldout_loss": f"{row.heldout_loss:.4f}"}
    logger.info(
        "trained",
        extra={
            "step": row.step,
            "loss": f"{row.loss:.4f}",
            **heldout,
            "grad_norm": f"{row.grad_norm:.3f}",
            "lr": f"{row.lr:.3g}",
            "examples_per_s": f"{speed.examples_per_s:.2f}",
        },
    )


def _divergence(
    run: PhaseRun, step: int, batch: LatentBatch, report: StepReport
) -> TrainingDivergedError:
    """Name the examples whose loss is not finite; all of the batch if only the gradient is."""
    clips: list[tuple[str, ...]] = [()] * dist.get_world_size()
    dist.all_gather_object(clips, batch.clip_ids)
    everything = [clip for part in clips for clip in part]
    bad = [
        clip
        for clip, loss in zip(everything, report.losses, strict=True)
        if not math.isfinite(loss)
    ]
    what = "loss" if bad else "gradient"
    named = bad or everything
    more = f" and {len(named) - _NUM_NAMED} more" if len(named) > _NUM_NAMED else ""
    return TrainingDivergedError(
        f"{run.stage_name}: the {what} of step {run.first_step + step + 1} is not finite; its "
        f"clips: {', '.join(named[:_NUM_NAMED])}{more}; the weights are those before the step"
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
