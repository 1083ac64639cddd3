"""One rank of a training job: builds what a phase needs and runs the phases in turn."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from svd.config.training import PhaseConfig
from svd.data.shards import load_manifest
from svd.data.stream import ordered_batches, stream_batches
from svd.models.weights import save_state
from svd.runtime.storage import open_store
from svd.runtime.store import Store
from svd.training.checkpoint import Checkpoints, PhaseState
from svd.training.ema import ShardedEma
from svd.training.engine import Engine
from svd.training.history import forget_rows_after
from svd.training.job import HistoryRow, Outcome, RunFolder, SpeedRow, TrainingJob
from svd.training.loop import PhaseRun, StopRequest, phase_shards, train_phase
from svd.training.network import PREFIX, RawNetwork, build_network
from svd.training.objective_builder import objective_builder
from svd.training.objectives import Objective
from svd.training.optim import freeze_others
from svd.training.traits import TRAITS
from svd.training.validation import Validator
from svd.types.batch import LatentBatch
from svd.types.shard import ShardManifest, StreamPosition

logger = logging.getLogger(__name__)
_ORDER_KEY = 7919  # spreads the phases' shuffling seeds; any odd number does


class Trainer:
    """One rank's view of a job: runs the phases that are not finished yet."""

    def __init__(self, job: TrainingJob, device: torch.device, stop: StopRequest) -> None:
        self._job = job
        self._device = device
        self._folder = RunFolder(Path(job.run))
        self._store: Store = open_store(job.data)
        self._manifest: ShardManifest = load_manifest(self._store)
        self._stop = stop
        self._build_objective = objective_builder(job, self._manifest, device)

    def run(self) -> Outcome:
        """Train phase after phase; return how it ended."""
        first_step = examples_seen = 0
        for index, phase in enumerate(self._job.config.phases):
            if not self._folder.phase_weights(index, phase.name).is_file():
                network = self._build_network(index)
                start = PhaseState(examples_seen=examples_seen)
                state, finished = self._run_phase(index, phase, network, start, first_step)
                if not finished:
                    return Outcome(kind="stopped", step=first_step + state.step)
            first_step += phase.num_steps
            examples_seen += phase.num_steps * phase.data.batch_size
        return Outcome(kind="finished", step=first_step)

    def _build_network(self, index: int) -> RawNetwork:
        """Return the network with the weights that a phase starts from."""
        config = self._job.config
        before = config.phase_before(index)
        init = Path(self._job.init) if self._job.init else None
        if before is not None:
            init = self._folder.phase_weights(before, config.phases[before].name)
        return build_network(
            self._job.denoiser,
            seed=self._job.seed,
            init=init,
            is_own=before is not None,
            activation_checkpointing=config.compute.activation_checkpointing,
        )

    def _run_phase(
        self,
        index: int,
        phase: PhaseConfig,
        network: RawNetwork,
        start: PhaseState,
        first_step: int,
    ) -> tuple[PhaseState, bool]:
        config = self._job.config
        frozen = self._prepare(network, phase)
        engine = Engine(network, phase=phase, optimizer=config.optimizer, compute=config.compute)
        ema = ShardedEma(engine.masters, decay=phase.ema_decay)
        checkpoints = Checkpoints(
            self._folder.phase(index, phase.name) / "checkpoints",
            keep_last=config.checkpoint.keep_last,
            device=self._device,
            zero_stage=config.compute.zero_stage,
        )
        state = self._resume(engine, ema, checkpoints) or start
        self._forget_rows_after(first_step + state.step)
        objective = self._build_objective(phase)
        run = PhaseRun(
            index=index,
            config=phase,
            stage=config,
            stage_name=self._job.stage,
            first_step=first_step,
            seed=self._job.seed,
            latent_scale=self._manifest.latent_scale,
            folder=self._folder,
            engine=engine,
            ema=ema,
            objective=objective,
            validator=self._build_validator(phase, objective),
            checkpoints=checkpoints,
            stop=self._stop,
        )
        state, finished = train_phase(run, state, self._stream(index, phase, state))
        if finished:
            self._save_weights(index, phase, engine, ema, frozen)
            checkpoints.remove_all()
        engine.close()
        return state, finished

    def _prepare(self, network: RawNetwork, phase: PhaseConfig) -> dict[str, torch.Tensor]:
        """Freeze what the phase does not train; return copies of it, for its weights file."""
        one_token = TRAITS[self._job.objective].is_one_token
        count = freeze_others(network, phase.trainable, one_token=one_token)
        network.to(self._device)
        if dist.get_rank() == 0:
            total = sum(parameter.numel() for parameter in network.parameters())
            logger.info(
                "phase starts",
                extra={"phase": phase.name, "parameters": total, "trained": count},
            )
        return {
            name: parameter.detach().cpu().clone()
            for name, parameter in network.named_parameters()
            if not parameter.requires_grad
        }

    def _resume(
        self, engine: Engine, ema: ShardedEma, checkpoints: Checkpoints
    ) -> PhaseState | None:
        state = checkpoints.load_latest(engine.partition, phase_shards(engine, ema))
        if state is not None:
            engine.set_adam_step(state.step)
            engine.publish(engine.masters)
            ema.num_updates = state.step
            if dist.get_rank() == 0:
                logger.info("resumed from a checkpoint", extra={"phase_step": state.step})
        return state

    def _forget_rows_after(self, step: int) -> None:
        if dist.get_rank() == 0:
            forget_rows_after(self._folder.history, HistoryRow, step=step)
            forget_rows_after(self._folder.speed, SpeedRow, step=step)

    def _stream(
        self, index: int, phase: PhaseConfig, state: PhaseState
    ) -> Iterator[tuple[LatentBatch, StreamPosition]]:
        return stream_batches(
            self._manifest,
            phase.data,
            state.position,
            source=self._store,
            seed=self._job.seed + _ORDER_KEY * index,
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
        )

    def _build_validator(self, phase: PhaseConfig, objective: Objective) -> Validator:
        validation = self._job.config.validation
        return Validator(
            ordered_batches(
                self._manifest,
                phase.data.model_copy(update={"batch_size": phase.micro_batch_size}),
                source=self._store,
                limit=validation.num_examples,
            ),
            objective=objective,
            sigmas=validation.sigmas,
            latent_scale=self._manifest.latent_scale,
            seed=self._job.seed,
        )

    def _save_weights(
        self,
        index: int,
        phase: PhaseConfig,
        engine: Engine,
        ema: ShardedEma,
        frozen: dict[str, torch.Tensor],
    ) -> None:
        """Put the averaged weights together and write them, under the UNet's own names."""
        trained = {
            name: tensor.cpu() if dist.get_rank() == 0 else tensor.new_empty(0)
            for name, tensor in engine.partition.gather(ema.flats)
        }
        if dist.get_rank() == 0:
            state = {
                name.removeprefix(PREFIX): tensor.contiguous()
                for name, tensor in sorted({**frozen, **trained}.items())
            }
            save_state(state, self._folder.phase_weights(index, phase.name))
        dist.barrier()
