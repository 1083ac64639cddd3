"""One rank of a training job: builds what a phase needs and runs the phases in turn."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from svd.config.model import AutoencoderConfig
from svd.config.training import PhaseConfig
from svd.data.shards import load_manifest
from svd.data.stream import ordered_batches, stream_batches
from svd.errors import ConfigError
from svd.models.tower import freeze
from svd.models.weights import load_weights, save_state
from svd.runtime.storage import open_store
from svd.runtime.store import Store
from svd.training.checkpoint import Checkpoints, PhaseState
from svd.training.ema import ShardedEma
from svd.training.engine import Engine
from svd.training.history import forget_rows_after
from svd.training.job import HistoryRow, Outcome, RunFolder, SpeedRow, TrainingJob
from svd.training.loop import PhaseRun, StopRequest, phase_shards, train_phase
from svd.training.network import PREFIX, RawNetwork, build_network
from svd.training.objectives import FrameEncoder, ImageToVideo, Objective, TextToVideo, TextTower
from svd.training.optim import freeze_others
from svd.training.validation import Validator
from svd.types.artifact import ModelRecord
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
        self._text_encoder = self._load_text_encoder()
        self._autoencoder = self._load_autoencoder()

    def run(self) -> Outcome:
        """Train phase after phase; return how it ended."""
        first_step = examples_seen = 0
        init, is_own = (Path(self._job.init) if self._job.init else None), False
        for index, phase in enumerate(self._job.config.phases):
            weights = self._folder.phase_weights(index, phase.name)
            if not weights.is_file():
                network = build_network(
                    self._job.denoiser,
                    seed=self._job.seed,
                    init=init,
                    is_own=is_own,
                    activation_checkpointing=self._job.config.compute.activation_checkpointing,
                )
                start = PhaseState(examples_seen=examples_seen)
                state, finished = self._run_phase(index, phase, network, start, first_step)
                if not finished:
                    return Outcome(kind="stopped", step=first_step + state.step)
            init, is_own = weights, True
            first_step += phase.num_steps
            examples_seen += phase.num_steps * phase.data.batch_size
        return Outcome(kind="finished", step=first_step)

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
        one_token = self._job.objective == "image-to-video"
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

    def _build_objective(self, phase: PhaseConfig) -> Objective:
        width = self._job.denoiser.unet.added_id_dim
        if self._text_encoder is not None:
            return TextToVideo(phase, text_encoder=self._text_encoder, id_width=width)
        if self._autoencoder is not None:
            return ImageToVideo(phase, autoencoder=self._autoencoder, id_width=width)
        raise ConfigError(f"stage {self._job.stage} has neither text_encoder nor autoencoder")

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

    def _load_text_encoder(self) -> TextTower | None:
        if self._job.objective != "text-to-video":
            return None
        if self._job.config.text_encoder is None:
            raise ConfigError(f"{self._job.stage}.text_encoder is missing: captions need one")
        # open_clip takes seconds to import; stages without text do without it.
        from svd.models.text_encoder import TextEncoder

        return TextEncoder(self._job.config.text_encoder).to(self._device)

    def _load_autoencoder(self) -> FrameEncoder | None:
        if self._job.objective != "image-to-video" or self._job.autoencoder is None:
            return None
        from svd.models.autoencoder import Autoencoder

        folder = Path(self._job.autoencoder)
        card = folder / "model.json"
        record = ModelRecord.parse(card.read_text(encoding="utf-8"), origin=str(card))
        autoencoder = Autoencoder(
            AutoencoderConfig.model_validate_json(json.dumps(record.architecture))
        )
        load_weights(autoencoder, folder / "weights.safetensors")
        freeze(autoencoder)
        return autoencoder.to(self._device)

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
