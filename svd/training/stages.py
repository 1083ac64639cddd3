"""The training stages as the doors call them: plan, start ranks, follow them, publish.

This process needs no torch: ranks do the work, on this machine or elsewhere, and leave rows and
weights in `.runs/<fingerprint>/`, which this one reads. So W&B is told by one process that no rank
waits for, and a killed door finds everything where it was.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock, Timeout
from safetensors import safe_open

import svd.errors
from svd.config.model import DenoiserConfig
from svd.config.training import TrainingStageConfig
from svd.errors import ConfigError, LaunchError, MissingInputError, SvdError
from svd.runtime.fingerprint import file_sha256, stage_fingerprint
from svd.runtime.launch import Launcher, LocalLauncher, RankJob, follow
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.training.history import read_rows
from svd.training.job import (
    HistoryRow,
    ObjectiveName,
    Outcome,
    RunFolder,
    SpeedRow,
    TrainingJob,
    write_text_atomically,
)
from svd.types.artifact import ModelRecord, StageReport, Value
from svd.types.shard import ShardManifest

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)
TrainingStage = Literal["pretrain-image", "pretrain-video", "finetune-i2v"]

OBJECTIVES: Final[dict[TrainingStage, ObjectiveName]] = {
    "pretrain-image": "text-to-video",
    "pretrain-video": "text-to-video",
    "finetune-i2v": "image-to-video",
}
RANK_MODULE: Final = "svd.training.rank"


def run(
    stage: TrainingStage,
    params: "Params",
    workspace: Workspace,
    *,
    tracker: Tracker,
    launcher: Launcher | None = None,
) -> StageReport:
    """Train one stage, resuming what an earlier attempt left.

    Args:
        stage: Which.
        params: The recipe.
        workspace: Where its inputs lie and its output goes.
        tracker: Told the rows as they come.
        launcher: Who starts the ranks; None is this machine.

    Raises:
        ConfigError: The recipe and the data do not fit each other.
        LaunchError: Ranks could not be started, died, or were asked to stop; or another process
            runs this very job.
        MissingInputError: An input is not there.
        TrainingDivergedError: Loss or gradient is not finite.
    """
    config: TrainingStageConfig = getattr(params, stage.replace("-", "_"))
    name = stage_fingerprint(workspace, stage)
    plan = _plan(stage, config, params.denoiser, params.seed, workspace, name)
    folder = RunFolder(Path(plan.job.run))
    folder.path.mkdir(parents=True, exist_ok=True)
    with _only_here(folder):
        if not _final_weights(plan.job).is_file():
            _train(plan.job, name, launcher or LocalLauncher(), tracker)
        record = _publish(plan, folder, workspace.model(stage), name)
    return _report(stage, record, read_rows(folder.history, HistoryRow), folder, workspace)


@dataclass(frozen=True, slots=True)
class _Plan:
    job: TrainingJob
    manifest: ShardManifest
    init_sha256: str | None


def _plan(
    stage: TrainingStage,
    config: TrainingStageConfig,
    denoiser: DenoiserConfig,
    seed: int,
    workspace: Workspace,
    name: str,
) -> _Plan:
    manifest = _read_manifest(workspace)
    objective = OBJECTIVES[stage]
    denoiser = _with_input_channels(denoiser, manifest, objective)
    _check_widths(denoiser, manifest, objective, stage)
    init = (
        None if config.init == "scratch" else workspace.model(config.init) / "weights.safetensors"
    )
    if init is not None and not init.is_file():
        raise MissingInputError(f"{init} is not there: run `svd {config.init}` first")
    autoencoder = workspace.model("autoencoder") if objective == "image-to-video" else None
    if autoencoder is not None and not (autoencoder / "model.json").is_file():
        raise MissingInputError(f"{autoencoder} is not there: run `svd autoencoder` first")
    job = TrainingJob(
        stage=stage,
        objective=objective,
        seed=seed,
        config=config,
        denoiser=denoiser,
        data=str(workspace.latents.absolute()),
        autoencoder=None if autoencoder is None else str(autoencoder.absolute()),
        init=None if init is None else str(init.absolute()),
        run=str((workspace.runs / name).absolute()),
    )
    return _Plan(job, manifest, init_sha256=None if init is None else file_sha256(init))


def _read_manifest(workspace: Workspace) -> ShardManifest:
    path = workspace.latents / "manifest.json"
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `svd encode` first")
    return ShardManifest.parse(path.read_text(encoding="utf-8"), origin=str(path))


def _with_input_channels(
    denoiser: DenoiserConfig, manifest: ShardManifest, objective: ObjectiveName
) -> DenoiserConfig:
    """Return the architecture with the noisy latents' channels, and the condition's if any."""
    channels = manifest.latent_channels * (2 if objective == "image-to-video" else 1)
    unet = denoiser.unet.model_copy(update={"in_channels": channels})
    return denoiser.model_copy(update={"unet": unet})


def _check_widths(
    denoiser: DenoiserConfig, manifest: ShardManifest, objective: ObjectiveName, stage: str
) -> None:
    unet = denoiser.unet
    if unet.out_channels != manifest.latent_channels:
        raise ConfigError(
            f"denoiser.unet.out_channels={unet.out_channels}, but the latents of the data set "
            f"have {manifest.latent_channels} channels"
        )
    if objective == "image-to-video" and unet.context_dim != manifest.embed_dim:
        raise ConfigError(
            f"denoiser.unet.context_dim={unet.context_dim}, but the image embeddings that {stage} "
            f"takes from the data set have {manifest.embed_dim}"
        )


def _only_here(folder: RunFolder) -> FileLock:
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as err:
        raise LaunchError(f"another process runs this job: {folder.lock} is held") from err
    return lock


def _final_weights(job: TrainingJob) -> Path:
    last = len(job.config.phases) - 1
    return RunFolder(Path(job.run)).phase_weights(last, job.config.phases[last].name)


def _train(job: TrainingJob, name: str, launcher: Launcher, tracker: Tracker) -> None:
    """Start ranks and follow them to the end of the last phase."""
    folder = RunFolder(Path(job.run))
    write_text_atomically(folder.job, job.canonical_json())
    folder.outcome.unlink(missing_ok=True)
    compute = job.config.compute
    ranks = RankJob(
        name=name,
        module=RANK_MODULE,
        arguments=(str(folder.job),),
        num_processes=compute.num_processes,
        threads_per_process=compute.threads_per_process,
        may_use_gpu=compute.device != "cpu",
        folder=Path(job.run),
    )
    told = _Teller(folder, tracker)
    for _ in follow(launcher, ranks):
        told.tell_new_rows()
    _check(job, folder)


class _Teller:
    """Tells the tracker what ranks append to their files."""

    def __init__(self, folder: RunFolder, tracker: Tracker) -> None:
        self._folder = folder
        self._tracker = tracker
        self._size = -1
        self._told = 0  # last step

    def tell_new_rows(self) -> None:
        """Log rows of steps not told yet; rows of a resumed run repeat, and repeat equal."""
        path = self._folder.speed  # written after the history's row of the same step
        size = path.stat().st_size if path.is_file() else 0
        if size == self._size:
            return
        self._size = size
        speeds = {row.step: row for row in read_rows(path, SpeedRow)}
        for row in read_rows(self._folder.history, HistoryRow):
            if row.step > self._told and row.step in speeds:
                self._tracker.log(_scalars(row, speeds[row.step]), step=row.step)
                self._told = row.step


def _scalars(row: HistoryRow, speed: SpeedRow) -> dict[str, float]:
    heldout = {} if row.heldout_loss is None else {"heldout/loss": row.heldout_loss}
    return {
        "loss": row.loss,
        **{f"loss/{name}": loss for name, loss in row.loss_by_sigma.items()},
        **heldout,
        **{f"heldout/{name}": loss for name, loss in row.heldout_loss_by_sigma.items()},
        "grad_norm": row.grad_norm,
        "lr": row.lr,
        "examples_seen": float(row.examples_seen),
        "speed/examples_per_s": speed.examples_per_s,
        "speed/step_s": speed.step_s,
        "speed/data_wait_share": speed.data_wait_share,
        "speed/peak_memory_bytes": float(speed.peak_memory_bytes),
    }


def _check(job: TrainingJob, folder: RunFolder) -> None:
    """Raise what ended the ranks, unless they finished."""
    if not folder.outcome.is_file():
        raise LaunchError(
            f"{job.stage}: the ranks died; the log above says why, unless they were killed or had "
            "no memory left; run the stage again to resume from the last checkpoint"
        )
    outcome = Outcome.parse(folder.outcome.read_text(encoding="utf-8"), origin=str(folder.outcome))
    if outcome.kind == "stopped":
        raise LaunchError(
            f"{job.stage}: stopped on request after step {outcome.step}, all of it saved; run the "
            "stage again to resume"
        )
    if outcome.kind == "failed":
        kind = getattr(svd.errors, outcome.error or "", LaunchError)
        if not (isinstance(kind, type) and issubclass(kind, SvdError)):
            kind = LaunchError
        raise kind(outcome.message)


def _publish(plan: _Plan, folder: RunFolder, out: Path, name: str) -> ModelRecord:
    """Write the stage's out folder: weights, card and curves, complete or not at all."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = partial / "weights.safetensors"
    shutil.copyfile(_final_weights(plan.job), weights)
    shutil.copyfile(folder.history, partial / "history.jsonl")
    record = _model_record(plan, weights, name)
    (partial / "model.json").write_text(record.canonical_json(), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return record


def _model_record(plan: _Plan, weights: Path, name: str) -> ModelRecord:
    job, manifest = plan.job, plan.manifest
    phase = job.config.phases[-1]
    text_encoder = job.config.text_encoder
    return ModelRecord(
        stage=job.stage,
        kind="denoiser",
        architecture=job.denoiser.model_dump(mode="json"),
        weights_sha256=file_sha256(weights),
        num_parameters=_count_parameters(weights),
        step=sum(phase.num_steps for phase in job.config.phases),
        examples_seen=sum(p.num_steps * p.data.batch_size for p in job.config.phases),
        params_fingerprint=_fingerprint(job),
        dataset_fingerprint=manifest.content_hash(),
        init_sha256=plan.init_sha256,
        run_fingerprint=name,
        extras={
            "objective": job.objective,
            "num_frames": phase.data.num_frames,
            "height": phase.data.height,
            "width": phase.data.width,
            "fps": manifest.model_dump(mode="json")["fps"],
            "latent_scale": manifest.latent_scale,
            "motion_table": manifest.motion_table.model_dump(mode="json"),
            "encoders": [encoder.model_dump(mode="json") for encoder in manifest.encoders],
            "text_encoder": None if text_encoder is None else text_encoder.model_dump(mode="json"),
        },
    )


def _fingerprint(job: TrainingJob) -> str:
    sections = {name: getattr(job, name).model_dump(mode="json") for name in ("config", "denoiser")}
    return hashlib.sha256(json.dumps([job.seed, sections], sort_keys=True).encode()).hexdigest()


def _count_parameters(weights: Path) -> int:
    total = 0
    with safe_open(weights, framework="np") as file:
        for tensor in file.keys():  # noqa: SIM118 (not a dict: it has no iterator)
            size = 1
            for side in file.get_slice(tensor).get_shape():
                size *= side
            total += size
    return total


def _report(
    stage: str,
    record: ModelRecord,
    history: list[HistoryRow],
    folder: RunFolder,
    workspace: Workspace,
) -> StageReport:
    summary: dict[str, Value] = {
        "parameters": record.num_parameters,
        "steps": record.step,
        "clips trained on": record.examples_seen,
        "loss, first row": history[0].loss,
        "loss, last row": history[-1].loss,
    }
    if history[-1].heldout_loss is not None:
        summary["held-out loss"] = history[-1].heldout_loss
    speeds = read_rows(folder.speed, SpeedRow)
    if speeds:
        summary["clips per second"] = round(speeds[-1].examples_per_s, 2)
        summary["peak memory of a rank, GB"] = round(
            max(row.peak_memory_bytes for row in speeds) / 1e9, 2
        )
    summary["weights sha256"] = record.weights_sha256
    out = workspace.model(stage).relative_to(workspace.root)
    return StageReport(
        stage=stage,
        summary=summary,
        outputs=tuple(
            str(out / name) for name in ("weights.safetensors", "model.json", "history.jsonl")
        ),
    )
