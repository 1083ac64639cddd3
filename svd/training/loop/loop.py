"""The training loop: one, for every objective, stage and phase."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from svd.data.stream.quarantine import QuarantinedExample
from svd.errors import CheckpointError
from svd.models.checkpoints.weights import save_state
from svd.runtime.progress import track
from svd.training.checkpoints.checkpoint import PhaseState
from svd.training.checkpoints.power_ema import snapshot_path
from svd.training.loop.divergence import divergence
from svd.training.loop.optim import lr_at
from svd.training.loop.pace import Shapes, Stopwatch
from svd.training.loop.phase_run import PhaseRun, phase_shards
from svd.training.loop.ranks import gather_rows
from svd.training.objective.loss import LossParts, denoising_loss
from svd.training.objective.network import gather_weights
from svd.training.objective.noise import DrawKey, Purpose, draw_sigma
from svd.training.objective.objectives import sample_latents
from svd.training.stage.job import HistoryRow, SpeedRow
from svd.types.batch import Conditioning, LatentBatch
from svd.types.shard import StreamPosition

logger = logging.getLogger(__name__)


class StepReport(NamedTuple):
    """What all ranks know of a step before its update."""

    losses: list[float]  # of the global batch, in its order
    sigmas: list[float]  # likewise
    stop_asked: bool  # of any rank, or the budget is spent
    checkpoint_written: bool  # by every rank: the save under way can be ended
    num_set_aside: int  # examples, by all ranks of this attempt; some may be the same
    shapes: list[Shapes]  # of each micro-batch; those of other ranks are alike

    @property
    def mean_loss(self) -> float:
        """Over the global batch."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def is_finite(self) -> bool:
        """Whether every loss is a number."""
        return all(math.isfinite(loss) for loss in self.losses)


@dataclass(slots=True)
class News:
    """What the progress line says of the last step."""

    loss: float = math.nan
    grad_norm: float = math.nan

    def line(self) -> str:
        """Return it; nothing before the first step."""
        if math.isnan(self.loss):
            return ""
        return f"loss {self.loss:.4f} grad_norm {self.grad_norm:.3f}"


def train_phase(
    run: PhaseRun, state: PhaseState, batches: Iterator[tuple[LatentBatch, StreamPosition]]
) -> tuple[PhaseState, bool]:
    """Train from a state to the end of the phase, or until asked to stop.

    Returns:
        The state reached, and whether it is the end of the phase.

    Raises:
        CheckpointError: Asked to stop, and the state could not be saved.
        IntegrityError: More examples than `max_quarantined` are unreadable, over all ranks.
        TrainingDivergedError: Loss or gradient is not finite; the weights are as they were before
            the step.
    """
    config = run.config
    watch, news = Stopwatch(run.peak), News()
    for step in _steps(run, state.step, news.line):
        watch.start()
        batch, position = next(batches)
        watch.data_arrived()
        report = _accumulate(run, batch)
        _check_quarantine(run, report.num_set_aside)
        norm = run.engine.update(lr_at(config, step)) if report.is_finite else math.nan
        if not math.isfinite(norm):
            run.checkpoints.drain()
            raise divergence(run.folder, batch, report, f"{run.stage_name} {config.name}", step + 1)
        news.loss, news.grad_norm = report.mean_loss, norm
        run.ema.update()
        if run.power_ema is not None:
            run.power_ema.update()
        watch.stop(batch_size=config.data.batch_size)
        run.ledger.keep()
        watch.flops += dist.get_world_size() * sum(run.work.flops(one) for one in report.shapes)
        if report.checkpoint_written:
            run.checkpoints.settle()
        state = PhaseState(
            step=step + 1,
            examples_seen=state.examples_seen + config.data.batch_size,
            position=position,
            window=state.window.add(report.losses, report.sigmas),
        )
        validates = _is_due(run, state, run.stage.validation.every_steps)
        if validates or state.step % run.stage.log_every_steps == 0:
            state = _log(run, state, norm, watch, validates=validates)
            watch = Stopwatch(run.peak)
        _show(run, state)
        _keep_power_averages(run, state)
        if _saves(run, state, stop_asked=report.stop_asked):
            shards = phase_shards(run.engine, run.ema, run.power_ema)
            watch.saved(run.checkpoints.begin(state, run.engine.partition, shards))
        if report.stop_asked and state.step < config.num_steps:
            if not run.checkpoints.drain():
                raise CheckpointError(
                    f"stopped after step {run.first_step + state.step}, which could not be saved "
                    "(the log says why); run the stage again to resume from the checkpoint before"
                )
            return state, False
    return state, True


def _is_due(run: PhaseRun, state: PhaseState, every_steps: int) -> bool:
    """Say whether something is done after this step; after a phase's last step it always is."""
    return state.step % every_steps == 0 or state.step == run.config.num_steps


def _saves(run: PhaseRun, state: PhaseState, *, stop_asked: bool) -> bool:
    """Say whether a step ends in a checkpoint; a phase's end only in one that stays for good."""
    policy = run.stage.checkpoint
    is_best = state.heldout_loss is not None and run.checkpoints.would_keep_as_best(
        state.heldout_loss
    )
    if state.step == run.config.num_steps:
        every = policy.keep_every_steps
        return is_best or (every is not None and state.step % every == 0)
    return is_best or stop_asked or state.step % policy.every_steps == 0


def _show(run: PhaseRun, state: PhaseState) -> None:
    """Sample videos, if it is time."""
    config = run.stage.samples
    if run.sampler is None or config is None or not _is_due(run, state, config.every_steps):
        return
    folder = run.folder.samples / f"step-{run.first_step + state.step:09d}"
    with run.engine.weights_from(run.ema.flats):
        run.sampler.run(run.engine, run.objective, folder)


def _keep_power_averages(run: PhaseRun, state: PhaseState) -> None:
    """Put the power-function averages on disk, if it is time."""
    config = run.config.power_ema
    if (
        run.power_ema is None
        or config is None
        or not _is_due(run, state, config.snapshot_every_steps)
    ):
        return
    folder = run.folder.power_ema(run.index, run.config.name)
    for std, flats in run.power_ema.flats.items():
        weights = gather_weights(run.engine.partition, flats, dtype=torch.float16)
        if dist.get_rank() == 0:
            save_state(weights, snapshot_path(folder, step=state.step, std=std))


def _check_quarantine(run: PhaseRun, num_set_aside: int) -> None:
    """Refuse the data set if the ranks have set too many examples aside, each counted once."""
    if run.quarantine.may_exceed(num_set_aside):
        found: list[tuple[QuarantinedExample, ...]] = [()] * dist.get_world_size()
        dist.all_gather_object(found, run.quarantine.records)
        run.quarantine.check(example for part in found for example in part)


def _steps(run: PhaseRun, start: int, news: Callable[[], str]) -> Iterator[int]:
    steps = range(start, run.config.num_steps)
    if dist.get_rank() > 0:
        return iter(steps)
    description = f"{run.stage_name} {run.config.name}"
    return track(steps, total=len(steps), description=description, unit="steps", note=news)


def _accumulate(run: PhaseRun, batch: LatentBatch) -> StepReport:
    """Add up the gradient of this rank's part of the batch; tell and hear the losses."""
    size = run.config.micro_batch_size
    parts, shapes = [], []
    for start in range(0, len(batch), size):
        micro = batch.part(start, start + size).to(run.engine.device)
        key = DrawKey(run.seed, run.index, micro.positions)
        latents = sample_latents(micro, key, latent_scale=run.latent_scale)
        conditioning = run.objective.condition(micro, key, dropout=True)
        part = _loss(run, latents, conditioning, key)
        run.engine.backward(part.loss, is_last=start + size == len(batch))
        parts.append(part)
        shapes.append(Shapes.of(latents, conditioning))
    losses = torch.cat([part.per_example for part in parts])
    sigmas = torch.cat([part.sigma for part in parts])
    stops = run.stop.asked or run.ledger.is_spent
    flags = losses.new_tensor(
        [stops, run.checkpoints.has_written, run.quarantine.num_examples], dtype=torch.float64
    )
    rows = gather_rows(torch.cat([losses, sigmas, flags]), run.engine.device)
    return StepReport(
        losses=rows[:, : len(batch)].flatten().tolist(),
        sigmas=rows[:, len(batch) : -3].flatten().tolist(),
        stop_asked=bool(rows[:, -3].any()),
        checkpoint_written=bool(rows[:, -2].all()),
        num_set_aside=int(rows[:, -1].sum()),
        shapes=shapes,
    )


def _loss(run: PhaseRun, latents: Tensor, conditioning: Conditioning, key: DrawKey) -> LossParts:
    noise = key.normal(Purpose.NOISE, tuple(latents.shape[1:])).to(latents.device)
    return denoising_loss(
        run.engine,
        latents=latents,
        noise=noise,
        sigma=draw_sigma(run.config.noise, key).to(latents.device),
        conditioning=conditioning,
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
    speed = watch.row(
        step,
        steps_left=run.config.num_steps - state.step,
        unsaved_steps=state.step - run.checkpoints.newest_step,
        device=run.engine.device,
        device_s=run.ledger.spent_s,
    )
    if dist.get_rank() == 0:
        run.history.append(row)
        run.speed.append(speed)
        _say(row, speed)
    return PhaseState(
        step=state.step,
        examples_seen=state.examples_seen,
        position=state.position,
        heldout_loss=row.heldout_loss,
    )


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
            "mfu": f"{speed.mfu:.1%}",
            "memory_gb": f"{speed.peak_memory_bytes / 1e9:.2f}",
            "left_s": f"{speed.phase_left_s:.0f}",
        },
    )
