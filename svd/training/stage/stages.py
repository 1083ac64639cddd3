"""The training stages as the doors call them: plan, start ranks, follow them, publish.

This process needs no torch: ranks do the work, on this machine or elsewhere, and leave rows and
weights in `.runs/<fingerprint>/`, which this one reads. So W&B is told by one process that no rank
waits for, and a killed door finds everything where it was.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import svd.errors
from svd.atomic import write_text
from svd.data.stream.quarantine import QuarantinedExample, read_quarantine
from svd.errors import BudgetError, LaunchError, SvdError
from svd.runtime.cost import price_per_device_hour, spent_scalars
from svd.runtime.fingerprint import fingerprint_of, stage_identity
from svd.runtime.launch.choice import build_launcher
from svd.runtime.launch.launcher import JobState, Launcher, RankJob, follow
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.training.checkpoints.publish import final_weights, publish
from svd.training.loop.history import read_rows
from svd.training.loop.ledger import budget_sentence, spent_s
from svd.training.stage.adoption import differences, note_identity, unfinished
from svd.training.stage.job import (
    HistoryRow,
    Outcome,
    RunFolder,
    SpeedRow,
    TrainingJob,
)
from svd.training.stage.plan import plan_stage
from svd.training.stage.runs import only_here, read_adoptions
from svd.types.artifact import ModelRecord, StageReport, Value
from svd.types.stage import TrainingStage

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)
RANK_MODULE: Final = "svd.training.loop.rank"


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
        launcher: Who starts the ranks; None is the one that `compute.launcher` asks for.

    Raises:
        BudgetError: The run has spent its budget.
        ConfigError: The recipe and the data do not fit each other.
        LaunchError: Ranks could not be started, died, or were asked to stop; or another process
            runs this very job.
        MissingInputError: An input is not there.
        TrainingDivergedError: Loss or gradient is not finite.
    """
    identity = stage_identity(workspace, stage)
    plan = plan_stage(stage, params, workspace, name=fingerprint_of(stage, identity))
    folder = RunFolder(Path(plan.job.run))
    folder.path.mkdir(parents=True, exist_ok=True)
    note_identity(folder, identity)
    _mention_unfinished(plan.job, identity)
    tracker.summarize({"run": plan.name, "dataset": plan.manifest.content_hash()})
    with only_here(folder):
        if not final_weights(plan.job).is_file():
            chosen = launcher or build_launcher(plan.job.config.compute.launcher)
            _train(plan.job, plan.name, chosen, tracker)
        record = publish(plan, workspace.model(stage))
        quarantined = list(read_quarantine(folder.quarantines))
    if quarantined:
        tracker.log_table(
            f"{stage}/quarantined",
            ("shard", "example", "clip", "reason"),
            [(one.shard_uri, one.example, one.clip_id or "", one.reason) for one in quarantined],
        )
    return _report(record, folder, workspace, quarantined)


def _mention_unfinished(job: TrainingJob, identity: Mapping[str, str]) -> None:
    """Say so if this run begins while another of the stage has not ended."""
    if RunFolder(Path(job.run)).history.is_file():
        return
    for other, step in unfinished(job):
        name = Path(other.run).name
        logger.warning(
            "another run of this stage is unfinished; this one begins anew",
            extra={
                "run": name,
                "step": step,
                "differs": ", ".join(differences(RunFolder(Path(other.run)), identity)),
                "to_go_on_from_it": f"svd checkpoint adopt {name}",
            },
        )


def _train(job: TrainingJob, name: str, launcher: Launcher, tracker: Tracker) -> None:
    """Start ranks and follow them to the end of the last phase."""
    folder = RunFolder(Path(job.run))
    spent = spent_s(folder.spent)
    if job.budget is not None and spent >= job.budget.device_s:
        raise BudgetError(budget_sentence(job.stage, job.budget, spent))
    write_text(folder.job, job.canonical_json())
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
        outcome=folder.outcome,
    )
    price = price_per_device_hour(compute.price_per_device_hour)
    told = _Teller(folder, tracker, price)
    state = JobState.RUNNING
    for found in follow(launcher, ranks):
        state = found
        told.tell_new_rows()
        told.tell_new_samples()
    tracker.summarize(spent_scalars(spent_s(folder.spent), price))
    _check(job, folder, state)


class _Teller:
    """Tells the tracker what ranks append to their files."""

    def __init__(self, folder: RunFolder, tracker: Tracker, price: float | None) -> None:
        self._folder = folder
        self._tracker = tracker
        self._price = price  # of a device for an hour
        self._size = -1
        self._told = 0  # last step
        self._shown: set[Path] = set()  # contact sheets

    def tell_new_samples(self) -> None:
        """Log videos and contact sheets that were not there before."""
        for sheet in sorted(self._folder.samples.glob("step-*.png")):  # written after its videos
            if sheet in self._shown:
                continue
            self._shown.add(sheet)
            step = int(sheet.stem.removeprefix("step-"))
            self._tracker.log_media("samples/sheet", sheet, step=step)
            videos = sorted(sheet.with_suffix("").glob("*.mp4"))
            for video in videos:
                self._tracker.log_media(f"samples/{video.stem}", video, step=step)
            # One row per held-out clip: runs that sampled the same clips stand side by side.
            rows = [(step, video.stem, video) for video in videos]
            self._tracker.log_table("samples/table", ("step", "clip", "video"), rows)

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
                spent = spent_scalars(speeds[row.step].device_s, self._price)
                self._tracker.log(_scalars(row, speeds[row.step]) | spent, step=row.step)
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
        "speed/mfu": speed.mfu,
        "speed/checkpoint_wait_s": speed.checkpoint_wait_s,
        "speed/unsaved_steps": float(speed.unsaved_steps),
        "speed/phase_left_s": speed.phase_left_s,
    }


def _check(job: TrainingJob, folder: RunFolder, state: JobState) -> None:
    """Raise what ended the ranks, unless they finished."""
    if not folder.outcome.is_file() and state is JobState.STOPPED:
        raise LaunchError(
            f"{job.stage}: stopped on request before its ranks could save anything new; run the "
            "stage again to resume from the last checkpoint"
        )
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


def _report(
    record: ModelRecord,
    folder: RunFolder,
    workspace: Workspace,
    quarantined: Sequence[QuarantinedExample],
) -> StageReport:
    history = read_rows(folder.history, HistoryRow)
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
    warnings = [
        f"example {one.example} ({one.clip_id or 'unknown clip'}) was set aside: {one.reason}"
        for one in quarantined
    ]
    for adopted in read_adoptions(folder):
        summary["went on from run"] = adopted.run
        warnings.append(
            f"went on from step {adopted.step} of run {adopted.run}, which differed in: "
            f"{', '.join(adopted.differs)}"
        )
    summary["dataset"] = record.dataset_fingerprint
    summary["examples quarantined"] = len(quarantined)
    summary["weights sha256"] = record.weights_sha256
    out = workspace.model(record.stage).relative_to(workspace.root)
    names = ("weights.safetensors", "model.json", "history.jsonl")
    return StageReport(
        stage=record.stage,
        summary=summary,
        warnings=tuple(warnings),
        outputs=tuple(str(out / name) for name in names),
    )
