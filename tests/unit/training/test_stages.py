"""A stage checks its inputs, hands a whole job to ranks, and says what became of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from svd.config.model import DenoiserConfig, ImageEncoderConfig
from svd.errors import (
    ConfigError,
    LaunchError,
    MissingInputError,
    SvdError,
    TrainingDivergedError,
)
from svd.models.checkpoints.weights import load_weights, save_weights
from svd.models.networks.denoiser import Denoiser
from svd.runtime.launch.launcher import JobState, RankJob
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.loop.history import RowFile
from svd.training.stage import stages
from svd.training.stage.job import HistoryRow, Outcome, RunFolder, SpeedRow, TrainingJob
from svd.types.artifact import ModelRecord
from svd.types.base import write_records
from tests.unit.training.world import (
    DENOISER,
    TEXT_ENCODER,
    Encode,
    Recipe,
    make_world,
    stage_config,
)


class Ranks:
    """A launcher whose ranks do at once what a test says."""

    def __init__(self, act: Callable[[TrainingJob, RunFolder], None]) -> None:
        self._act = act
        self.jobs: list[RankJob] = []

    def submit(self, job: RankJob) -> str:
        self.jobs.append(job)
        path = Path(job.arguments[0])
        training = TrainingJob.parse(path.read_text(), origin=str(path))
        self._act(training, RunFolder(Path(training.run)))
        return job.name

    def poll(self, job_id: str) -> JobState:
        return JobState.SUCCEEDED

    def stop(self, job_id: str) -> None:
        raise AssertionError

    abandon = stop


class Told(NullTracker):
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, values: Any, *, step: int) -> None:
        self.rows.append((step, dict(values)))


def finish(job: TrainingJob, folder: RunFolder) -> None:
    """Do what real ranks do in the end."""
    for step in (2, 4, 6):
        row = HistoryRow(
            step=step,
            phase="only",
            examples_seen=4 * step,
            loss=1.0 / step,
            loss_by_sigma={"sigma<1": 0.5},
            grad_norm=1.0,
            lr=1e-3,
            heldout_loss=0.25,
            heldout_loss_by_sigma={"sigma=1": 0.25},
        )
        RowFile(folder.history).append(row)
        speed = SpeedRow(
            step=step,
            examples_per_s=3.0,
            step_s=1.0,
            data_wait_share=0.1,
            peak_memory_bytes=10**9,
            mfu=0.25,
            checkpoint_wait_s=0.0,
            phase_left_s=10.0,
        )
        RowFile(folder.speed).append(speed)
    torch.manual_seed(0)
    save_weights(Denoiser(job.denoiser).unet, folder.phase_weights(0, "only"))
    write_records(folder.outcome, [Outcome(kind="finished", step=6)])


def recipe(**changes: Any) -> Recipe:
    return Recipe(seed=1, denoiser=DENOISER, finetune_i2v=stage_config(**changes))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Inputs that no test of this module changes."""
    return make_world(tmp_path_factory.mktemp("world"))


def test_what_ranks_made_is_published_with_its_card(tmp_path: Path) -> None:
    workspace = make_world(tmp_path)
    tracker, ranks = Told(), Ranks(finish)
    report = stages.run("finetune-i2v", recipe(), workspace, tracker=tracker, launcher=ranks)
    out = workspace.model("finetune-i2v")
    assert sorted(path.name for path in out.iterdir()) == [
        "history.jsonl",
        "model.json",
        "weights.safetensors",
    ]
    record = ModelRecord.parse((out / "model.json").read_text(), origin="test")
    rebuilt = Denoiser(DenoiserConfig.model_validate(record.architecture, strict=False))
    load_weights(rebuilt.unet, out / "weights.safetensors")
    assert rebuilt.config.unet.in_channels == 8
    assert record.num_parameters == sum(p.numel() for p in rebuilt.parameters())
    assert (record.step, record.examples_seen) == (6, 24)
    extras = record.extras
    assert (extras["num_frames"], extras["height"], extras["width"]) == (4, 16, 32)
    assert extras["image_encoder"] == ImageEncoderConfig(kind="tiny", width=16).model_dump()
    assert extras["fps"] == "8/1"
    assert report.summary["weights sha256"] == record.weights_sha256
    assert [step for step, _ in tracker.rows] == [2, 4, 6]
    assert tracker.rows[0][1]["loss"] == 0.5
    assert tracker.rows[0][1]["loss/sigma<1"] == 0.5
    assert tracker.rows[0][1]["heldout/sigma=1"] == 0.25
    assert tracker.rows[0][1]["speed/examples_per_s"] == 3.0
    # Once more: no ranks, the same bytes.
    content = {path.name: path.read_bytes() for path in out.iterdir()}
    stages.run("finetune-i2v", recipe(), workspace, tracker=tracker, launcher=ranks)
    assert len(ranks.jobs) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == content


def test_a_phase_that_is_kept_is_published_beside_the_last(tmp_path: Path) -> None:
    """The released 14-frame model is a phase on the way to no other: both are kept."""

    def finish_all(job: TrainingJob, folder: RunFolder) -> None:
        finish(job, folder)
        for index, name in ((1, "short"), (2, "long")):
            torch.manual_seed(index)
            save_weights(Denoiser(job.denoiser).unet, folder.phase_weights(index, name))

    config = stage_config()
    base = config.phases[0]
    phases = (
        base,
        base.model_copy(update={"name": "short", "keep": True}),
        base.model_copy(update={"name": "long", "init": "only", "num_steps": 8}),
    )
    workspace = make_world(tmp_path)
    changed = Recipe(
        seed=1, denoiser=DENOISER, finetune_i2v=config.model_copy(update={"phases": phases})
    )
    launcher = Ranks(finish_all)
    stages.run("finetune-i2v", changed, workspace, tracker=NullTracker(), launcher=launcher)
    out = workspace.model("finetune-i2v")
    records = {
        name: ModelRecord.parse((folder / "model.json").read_text(), origin="test")
        for name, folder in (("long", out), ("short", out / "phases" / "short"))
    }
    assert records["short"].weights_sha256 != records["long"].weights_sha256
    assert records["short"].step == 6 + 6
    assert records["long"].step == 6 + 8  # what its weights went through, not what the stage ran
    assert records["long"].extras["phases"] == ["only", "long"]
    assert not (out / "phases" / "only").exists()


def test_ranks_get_the_processes_and_threads_of_the_recipe(shared: Workspace) -> None:
    def stop(job: TrainingJob, folder: RunFolder) -> None:
        write_records(folder.outcome, [Outcome(kind="stopped", step=3)])

    ranks = Ranks(stop)
    config = recipe(compute={"num_processes": 2, "threads_per_process": 3, "device": "cpu"})
    with pytest.raises(LaunchError, match="finetune-i2v: stopped on request after step 3"):
        stages.run("finetune-i2v", config, shared, tracker=NullTracker(), launcher=ranks)
    (job,) = ranks.jobs
    assert (job.num_processes, job.threads_per_process, job.may_use_gpu) == (2, 3, False)


@pytest.mark.parametrize(
    ("outcome", "kind", "said"),
    [
        (
            Outcome(kind="failed", error="TrainingDivergedError", message="the loss is not finite"),
            TrainingDivergedError,
            "the loss is not finite",
        ),
        (Outcome(kind="failed", error="ConfigError", message="no clip"), ConfigError, "no clip"),
        (Outcome(kind="failed", error="Path", message="odd"), LaunchError, "odd"),
        (None, LaunchError, "the ranks died"),
    ],
    ids=["diverged", "config", "unknown", "silent"],
)
def test_what_ended_the_ranks_is_raised_here(
    shared: Workspace, outcome: Outcome | None, kind: type[SvdError], said: str
) -> None:
    def end(job: TrainingJob, folder: RunFolder) -> None:
        if outcome is not None:
            write_records(folder.outcome, [outcome])

    with pytest.raises(kind, match=said):
        stages.run("finetune-i2v", recipe(), shared, tracker=NullTracker(), launcher=Ranks(end))


def test_one_job_is_not_run_twice_at_a_time(shared: Workspace) -> None:
    def again(job: TrainingJob, folder: RunFolder) -> None:
        stages.run("finetune-i2v", recipe(), shared, tracker=NullTracker(), launcher=Ranks(finish))

    with pytest.raises(LaunchError, match="another process runs this job"):
        stages.run("finetune-i2v", recipe(), shared, tracker=NullTracker(), launcher=Ranks(again))


@pytest.mark.parametrize(
    ("stage", "changed", "kind", "said"),
    [
        (
            "finetune-i2v",
            recipe(init="pretrain-video"),
            MissingInputError,
            r"models/pretrain-video/weights.safetensors is not there: run `svd pretrain-video`",
        ),
        (
            "pretrain-video",
            Recipe(seed=1, denoiser=DENOISER, pretrain_video=stage_config()),
            ConfigError,
            "pretrain-video.text_encoder is missing",
        ),
        (
            "pretrain-video",
            Recipe(
                seed=1,
                denoiser=DENOISER,
                pretrain_video=stage_config(text_encoder=TEXT_ENCODER | {"width": 32}),
            ),
            ConfigError,
            "denoiser.unet.context_dim=16, but text_encoder.width=32",
        ),
        (
            "finetune-i2v",
            Recipe(
                seed=1,
                denoiser=DENOISER.model_copy(
                    update={"unet": DENOISER.unet.model_copy(update={"context_dim": 24})}
                ),
                finetune_i2v=stage_config(),
                encode=Encode(),
            ),
            ConfigError,
            "context_dim=24, but the image embeddings of the data set have 16",
        ),
    ],
    ids=["no init", "no text encoder", "text width", "image width"],
)
def test_inputs_that_do_not_fit_are_said_before_any_rank_starts(
    shared: Workspace, stage: Any, changed: Recipe, kind: type[SvdError], said: str
) -> None:
    ranks = Ranks(finish)
    with pytest.raises(kind, match=said):
        stages.run(stage, changed, shared, tracker=NullTracker(), launcher=ranks)
    assert not ranks.jobs


def test_no_data_set_says_which_stage_makes_one(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {finetune-i2v: {params: [seed]}}")
    (tmp_path / "params.yaml").write_text("seed: 1")
    with pytest.raises(MissingInputError, match="run `svd encode` first"):
        stages.run("finetune-i2v", recipe(), Workspace(tmp_path), tracker=NullTracker())
