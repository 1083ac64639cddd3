"""One rank of a training job: builds what a phase needs and runs the phases in turn."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from svd.config.training import PhaseConfig
from svd.data.stream.quarantine import Quarantine, quarantine_limit, read_quarantine
from svd.data.stream.shards import load_manifest
from svd.data.stream.stream import OrderedBatches, stream_batches
from svd.errors import BudgetError, MissingInputError
from svd.models.adapters.lora_file import save_adapter
from svd.models.checkpoints.weights import save_state
from svd.runtime.storage import open_store
from svd.runtime.store import Store
from svd.training.checkpoints.checkpoint import PhaseState, find_checkpoints, home_of, open_home
from svd.training.checkpoints.ema import ShardedEma
from svd.training.checkpoints.power_ema import PowerEma
from svd.training.checkpoints.saver import Checkpoints
from svd.training.loop.engine import Engine
from svd.training.loop.history import RowFile, forget_rows_after, read_rows
from svd.training.loop.ledger import Ledger, budget_sentence
from svd.training.loop.loop import train_phase
from svd.training.loop.optim import freeze_others, trained_set
from svd.training.loop.pace import Work, peak_flops
from svd.training.loop.phase_run import PhaseRun, phase_shards
from svd.training.loop.samples import Sampler
from svd.training.loop.stop import StopRequest
from svd.training.loop.validation import Validator
from svd.training.objective.adapter import collect_adapter
from svd.training.objective.network import PREFIX, RawNetwork, build_phase_network, gather_weights
from svd.training.objective.objective_builder import load_frozen_autoencoder, objective_builder
from svd.training.objective.objectives import Objective
from svd.training.objective.traits import TRAITS
from svd.training.stage.job import HistoryRow, Outcome, RunFolder, SpeedRow, TrainingJob
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
        self._ledger = Ledger(
            self._folder.spent,
            num_devices=dist.get_world_size(),
            budget=job.budget,
            keeps=dist.get_rank() == 0,
        )
        self._build_objective = objective_builder(job, self._manifest, device)

    def run(self) -> Outcome:
        """Train phase after phase; return how it ended."""
        outcome = self._run_phases()
        self._ledger.keep(now=True)
        return outcome

    def _run_phases(self) -> Outcome:
        first_step = examples_seen = 0
        for index, phase in enumerate(self._job.config.phases):
            if not self._folder.phase_weights(index, phase.name).is_file():
                network = build_phase_network(self._job, index)
                start = PhaseState(examples_seen=examples_seen)
                state, finished = self._run_phase(index, phase, network, start, first_step)
                if not finished:
                    return self._stopped(first_step + state.step)
            first_step += phase.num_steps
            examples_seen += phase.num_steps * phase.data.batch_size
        return Outcome(kind="finished", step=first_step)

    def _stopped(self, step: int) -> Outcome:
        if self._job.budget is None or not self._ledger.is_spent:
            return Outcome(kind="stopped", step=step)
        sentence = budget_sentence(self._job.stage, self._job.budget, self._ledger.spent_s)
        text = f"{sentence} after step {step}, all of which is saved"
        return Outcome(kind="failed", step=step, error=BudgetError.__name__, message=text)

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
            open_home(self._job, index),
            policy=config.checkpoint,
            device=self._device,
            zero_stage=config.compute.zero_stage,
            staging=self._folder.phase(index, phase.name) / "staging",
        )
        power_ema = None
        if phase.power_ema is not None:
            power_ema = PowerEma(engine.masters, stds=phase.power_ema.stds)
        state = self._resume(engine, ema, power_ema, checkpoints)
        if state is None:
            self._check_that_none_was_lost(index, first_step)
            state = start
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
            history=RowFile(self._folder.history),
            speed=RowFile(self._folder.speed),
            engine=engine,
            ema=ema,
            power_ema=power_ema,
            objective=objective,
            validator=self._build_validator(phase, objective),
            sampler=self._build_sampler(phase),
            checkpoints=checkpoints,
            quarantine=Quarantine(
                limit=quarantine_limit(phase.data, self._manifest),
                known=read_quarantine(self._folder.quarantines),
                keep_in=self._folder.quarantine(dist.get_rank()),
            ),
            work=Work(
                self._job.denoiser,
                trained_set(config, phase),
                adapter=config.adapter,
                peak=peak_flops(self._device, engine.dtype),
            ),
            stop=self._stop,
            ledger=self._ledger,
        )
        batches = self._stream(index, phase, state, run.quarantine)
        state, finished = train_phase(run, state, batches)
        if finished:
            self._save_weights(index, phase, engine, ema, frozen)
            checkpoints.end_phase()
        engine.close()
        return state, finished

    def _prepare(self, network: RawNetwork, phase: PhaseConfig) -> dict[str, torch.Tensor]:
        """Freeze what the phase does not train; return copies of it, for its weights file."""
        one_token = TRAITS[self._job.objective].is_one_token
        trainable = trained_set(self._job.config, phase)
        count = freeze_others(network, trainable, one_token=one_token)
        network.to(self._device)
        if dist.get_rank() == 0:
            total = sum(parameter.numel() for parameter in network.parameters())
            logger.info(
                "phase starts",
                extra={"phase": phase.name, "parameters": total, "trained": count},
            )
        if trainable == "adapter":
            return {}  # an adapter's file holds the adapter alone
        return {
            name: parameter.detach().cpu().clone()
            for name, parameter in network.named_parameters()
            if not parameter.requires_grad
        }

    def _resume(
        self,
        engine: Engine,
        ema: ShardedEma,
        power_ema: PowerEma | None,
        checkpoints: Checkpoints,
    ) -> PhaseState | None:
        state = checkpoints.load_latest(engine.partition, phase_shards(engine, ema, power_ema))
        if state is not None:
            engine.set_adam_step(state.step)
            engine.publish(engine.masters)
            ema.num_updates = state.step
            if power_ema is not None:
                power_ema.num_updates = state.step
            if dist.get_rank() == 0:
                logger.info("resumed from a checkpoint", extra={"phase_step": state.step})
        return state

    def _check_that_none_was_lost(self, index: int, first_step: int) -> None:
        """Refuse to begin a phase again that has had a checkpoint: its store may not be mounted.

        Raises:
            MissingInputError: Rows of the phase say that there was one.
        """
        if dist.get_rank() > 0:
            return
        rows = read_rows(self._folder.speed, SpeedRow)
        saved = [row.step - first_step - row.unsaved_steps for row in rows if row.step > first_step]
        if max(saved, default=0) > 0:
            name = self._job.config.phases[index].name
            raise MissingInputError(
                f"phase {name} had a checkpoint of step {max(saved)}, and there is none in "
                f"{home_of(self._job, index)}: is that place mounted? If it is lost, delete "
                f"{self._folder.speed} to begin the phase anew"
            )
        for later in range(index + 1, len(self._job.config.phases)):
            if next(find_checkpoints(open_home(self._job, later)), None) is not None:
                done = self._folder.phase_weights(index, self._job.config.phases[index].name)
                raise MissingInputError(
                    f"{home_of(self._job, later)} has checkpoints of a later phase, so this phase "
                    f"was finished, but {done} is not there: is the folder of runs that of the "
                    "earlier attempts? If it is lost, delete those checkpoints to begin anew"
                )

    def _forget_rows_after(self, step: int) -> None:
        if dist.get_rank() == 0:
            forget_rows_after(self._folder.history, HistoryRow, step=step)
            forget_rows_after(self._folder.speed, SpeedRow, step=step)

    def _stream(
        self, index: int, phase: PhaseConfig, state: PhaseState, quarantine: Quarantine
    ) -> Iterator[tuple[LatentBatch, StreamPosition]]:
        return stream_batches(
            self._manifest,
            phase.data,
            state.position,
            source=self._store,
            seed=self._job.seed + _ORDER_KEY * index,
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            quarantine=quarantine,
        )

    def _build_validator(self, phase: PhaseConfig, objective: Objective) -> Validator:
        validation = self._job.config.validation
        return Validator(
            OrderedBatches(
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

    def _build_sampler(self, phase: PhaseConfig) -> Sampler | None:
        config = self._job.config.samples
        if config is None:
            return None
        batches = OrderedBatches(
            self._manifest,
            phase.data.model_copy(update={"batch_size": 1}),
            source=self._store,
            limit=config.num_clips,
        )
        return Sampler(
            batches,
            config=config,
            denoiser=self._job.denoiser,
            autoencoder=load_frozen_autoencoder(self._job).to(self._device),
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
        """Put the averaged weights together and write them, as a UNet or as an adapter."""
        path, adapter = self._folder.phase_weights(index, phase.name), self._job.config.adapter
        trained = gather_weights(engine.partition, ema.flats)
        if dist.get_rank() == 0 and adapter is not None:
            save_adapter(path, collect_adapter(trained, adapter), self._job.denoiser.unet)
        elif dist.get_rank() == 0:
            fixed = {name.removeprefix(PREFIX): tensor for name, tensor in frozen.items()}
            save_state(dict(sorted({**fixed, **trained}.items())), path)
        dist.barrier()
