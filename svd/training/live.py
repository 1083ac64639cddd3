"""The runs of training stages that are on disk, and their checkpoints as models."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from svd.config.base import Section
from svd.config.model import ImageEncoderConfig
from svd.data.stream.shards import load_manifest
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.models.adapters.lora_file import save_adapter
from svd.models.checkpoints.weights import save_state
from svd.runtime.fingerprint import file_sha256
from svd.runtime.storage import open_store
from svd.runtime.store import Store
from svd.runtime.workspace import Workspace
from svd.training.checkpoints.checkpoint import CheckpointRecord, fetch, find_checkpoints, open_home
from svd.training.checkpoints.partition import Fragment, Partition
from svd.training.checkpoints.power_ema import find_snapshots, reconstruct
from svd.training.checkpoints.publish import model_record
from svd.training.checkpoints.retention import Reason, Saved, reasons_to_keep
from svd.training.checkpoints.shardfile import load_shards
from svd.training.loop.optim import freeze_others, trained_set
from svd.training.objective.adapter import collect_adapter
from svd.training.objective.network import PREFIX, RawNetwork, build_phase_network
from svd.training.objective.traits import TRAITS
from svd.training.stage.job import RunFolder, TrainingJob
from svd.training.stage.plan import StagePlan
from svd.training.stage.runs import read_jobs
from svd.types.artifact import ModelRecord
from svd.types.shard import ShardManifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveCheckpoint:
    """One checkpoint of a run.

    Attributes:
        job: The run.
        phase_index: Which of its phases.
        prefix: Of its keys in the store.
        record: None if it cannot be read, which `problem` explains.
        reasons: Why the policy keeps it.
    """

    job: TrainingJob
    phase_index: int
    prefix: str
    record: CheckpointRecord | None
    problem: str = ""
    reasons: tuple[Reason, ...] = ()

    @property
    def store(self) -> Store:
        """Where it lies."""
        return open_home(self.job, self.phase_index)

    @property
    def run_name(self) -> str:
        """The run's fingerprint."""
        return Path(self.job.run).name

    @property
    def phase_name(self) -> str:
        """The phase's name."""
        return self.job.config.phases[self.phase_index].name


def find_jobs(workspace: Workspace, wanted: str | None = None) -> list[TrainingJob]:
    """Return the runs, the one worked on last at the end.

    Args:
        workspace: The checkout.
        wanted: A stage, or the beginning of a run's fingerprint; None is all.

    Raises:
        MissingInputError: None fits.
    """
    jobs = list(read_jobs(workspace.runs))
    if not jobs:
        raise MissingInputError(
            f"{workspace.runs} holds no training run yet: train a stage, e.g. svd pretrain-image"
        )
    found = [
        job
        for job in jobs
        if wanted is None or job.stage == wanted or Path(job.run).name.startswith(wanted)
    ]
    if not found:
        names = ", ".join(f"{job.stage} {Path(job.run).name}" for job in jobs)
        raise MissingInputError(f"no training run {wanted}; there are: {names}")
    return found


def checkpoints_of(job: TrainingJob) -> Iterator[LiveCheckpoint]:
    """Yield a run's checkpoints, by phase and step."""
    for index in range(len(job.config.phases)):
        found = list(find_checkpoints(open_home(job, index)))
        states = [finding.record.state for finding in found if finding.record is not None]
        kept = reasons_to_keep(
            [Saved(state.step, state.heldout_loss) for state in states], job.config.checkpoint
        )
        for prefix, record, problem in found:
            reasons = () if record is None else kept.get(record.state.step, ())
            yield LiveCheckpoint(job, index, prefix, record, problem, reasons)


def pick_checkpoint(
    jobs: list[TrainingJob], *, step: int | None, phase: str | None
) -> LiveCheckpoint:
    """Return the checkpoint of the last run that has one.

    Args:
        jobs: Runs, the one that counts most at the end.
        step: Within the phase; None is the newest.
        phase: None is the last that has one.

    Raises:
        MissingInputError: There is none.
    """
    for job in reversed(jobs):
        found = [
            one
            for one in checkpoints_of(job)
            if one.record is not None
            and (step is None or one.record.state.step == step)
            and (phase is None or one.phase_name == phase)
        ]
        if found:
            return found[-1]
    raise MissingInputError("no such checkpoint; `svd checkpoint ls` lists what there is")


def export_checkpoint(found: LiveCheckpoint, out: Path, *, averaged: bool) -> ModelRecord:
    """Write a checkpoint as a model: weights.safetensors and model.json, as a stage leaves.

    Args:
        found: The checkpoint; its files are verified.
        out: The folder.
        averaged: The averaged weights, else those of the optimizer.

    Raises:
        IntegrityError: It is damaged.
        MissingInputError: It is not there any more.
    """
    if found.record is None:
        raise IntegrityError(found.problem)
    network = build_phase_network(found.job, found.phase_index)
    trained = _trained_parameters(network, found.job, found.phase_index)
    names = list(trained)
    partition = Partition(
        shapes={name: tensor.shape for name, tensor in trained.items()},
        fragments=tuple(
            Fragment(name, 0, trained[name].numel(), flat=place, offset=0)
            for place, name in enumerate(names)
        ),
        is_sharded=False,
        device=torch.device("cpu"),
    )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder, torch.no_grad():
        paths = [fetch(found.store, found.record, f, Path(folder)) for f in found.record.files]
        kind = "ema" if averaged else "master"
        load_shards(paths, partition, {kind: [trained[name] for name in names]})
    return _write_model(found.job, found.phase_index, network, out, step=found.record.state.step)


def export_power_average(
    job: TrainingJob, phase_index: int, out: Path, *, std: float, step: int | None
) -> ModelRecord:
    """Write the power-function average of any width as a model.

    Args:
        job: A run that kept some.
        phase_index: Which of its phases.
        out: The folder.
        std: Relative standard deviation of the average.
        step: Where it ends, one that has snapshots; None is the last.

    Raises:
        ConfigError: The phase keeps none.
        MissingInputError: There is no snapshot of that step.
    """
    phase = job.config.phases[phase_index]
    if phase.power_ema is None:
        raise ConfigError(f"phase {phase.name} of {job.stage} has no power_ema in its recipe")
    snapshots = find_snapshots(RunFolder(Path(job.run)).power_ema(phase_index, phase.name))
    if step is None:
        step = max((snapshot.step for snapshot in snapshots), default=0)
    network = build_phase_network(job, phase_index)
    trained = _trained_parameters(network, job, phase_index)
    with torch.no_grad():
        for name, tensor in reconstruct(snapshots, std=std, step=step).items():
            trained[PREFIX + name].copy_(tensor)
    return _write_model(job, phase_index, network, out, step=step)


def _trained_parameters(
    network: RawNetwork, job: TrainingJob, phase_index: int
) -> Mapping[str, Tensor]:
    one_token = TRAITS[job.objective].is_one_token
    trainable = trained_set(job.config, job.config.phases[phase_index])
    freeze_others(network, trainable, one_token=one_token)
    return {
        name: parameter.data
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }


def _write_model(
    job: TrainingJob, phase_index: int, network: RawNetwork, out: Path, *, step: int
) -> ModelRecord:
    weights = out / "weights.safetensors"
    if job.config.adapter is None:
        save_state(network.denoiser.unet.state_dict(), weights)
    else:
        trained = _trained_parameters(network, job, phase_index)
        named = {name.removeprefix(PREFIX): tensor for name, tensor in trained.items()}
        save_adapter(weights, collect_adapter(named, job.config.adapter), job.denoiser.unet)
    card = model_record(_plan_of(job), phase_index, weights)
    phase = job.config.phases[phase_index]
    missing = phase.num_steps - step
    record = card.model_copy(
        update={
            "step": card.step - missing,
            "examples_seen": card.examples_seen - missing * phase.data.batch_size,
        }
    )
    (out / "model.json").write_text(record.canonical_json(), encoding="utf-8")
    return record


def _plan_of(job: TrainingJob) -> StagePlan:
    """Return what a stage's door knew when it wrote the job."""
    manifest = load_manifest(open_store(job.data))
    return StagePlan(
        name=Path(job.run).name,
        job=job,
        manifest=manifest,
        init_sha256=None if job.init is None else file_sha256(Path(job.init)),
        context_encoder=_context_encoder(job, manifest),
    )


def _context_encoder(job: TrainingJob, manifest: ShardManifest) -> dict[str, Section]:
    if job.config.text_encoder is not None:
        return {"text_encoder": job.config.text_encoder}
    configs = [one.config for one in manifest.encoders if one.role == "image-encoder"]
    return {"image_encoder": ImageEncoderConfig.model_validate(configs[0])} if configs else {}
