"""W&B offline, for real: what a stage tells it lies in the project and can be read back."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from svd.errors import BudgetError, ConfigError, SvdError, TrainingDivergedError
from svd.runtime.tracking import NullTracker, Tracker, WandbTracker, open_tracker, tracker_run_id
from svd.runtime.workspace import Workspace


def inspect(folder: Path) -> list[dict]:
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [str(wandb), "leet", "inspect", "--json", str(folder)], capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_stage_is_one_offline_run_inside_the_project(
    checkout: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setenv("SVD_PIPELINE_RUN", "pipeline-7")
    picture = checkout.root / "p.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    with open_tracker("demo", workspace=checkout, config={"demo": {"lr": 1e-4}}) as tracker:
        assert isinstance(tracker, Tracker)
        tracker.log({"loss": 2.0, "val/loss": np.float32(3.0)}, step=10)
        tracker.log_media("samples", picture, step=10)
        tracker.log_table("clips", ["id", "motion"], [["a", 1.5], ["b", 2]])
        tracker.log_table("samples/table", ["clip", "picture"], [["a", picture]])
        tracker.summarize({"clips kept": 2})

    (folder,) = (checkout.root / "wandb").glob("offline-run-*")
    records = inspect(folder)
    run = next(r["run"] for r in records if r["type"] == "run")
    assert run["run_group"] == "pipeline-7"
    assert run["run_id"].startswith("demo-")
    assert run["config"]["update"]["demo"] == {"lr": 1e-4}
    assert len(run["config"]["update"]["run"]["commit"]) == 40
    assert "dep:svd" in run["config"]["update"]["run"]["inputs"]
    metrics = [r["metric"] for r in records if r["type"] == "metric"]
    assert {"glob_name": "train/*", "step_metric": "train/step"}.items() <= metrics[1].items()
    history = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert history[0]["train/loss"] == 2.0
    assert history[0]["val/loss"] == 3.0
    assert history[0]["train/step"] == 10
    assert [r["exit"]["exit_code"] for r in records if r["type"] == "exit"] == [0]
    assert list(folder.glob("files/media/**/*.png"))
    staged = checkout.root / "wandb" / "artifacts"
    assert list(staged.rglob("*"))  # the table's bytes lie in the project as well
    shown = [r["artifact"] for r in records if r["type"] == "artifact"][-1]["manifest"]["contents"]
    assert any(entry["path"].endswith(".png") for entry in shown)  # the table holds the picture


def test_a_stage_that_raises_is_a_failed_run_and_its_error_goes_on(checkout: Workspace) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        open_tracker("demo", workspace=checkout, config={}) as tracker,
    ):
        tracker.log({"loss": 1 / 0}, step=1)
    (folder,) = (checkout.root / "wandb").glob("offline-run-*")
    assert [r["exit"]["exit_code"] for r in inspect(folder) if r["type"] == "exit"] == [1]


@pytest.mark.parametrize(
    ("raised", "alerts"),
    [
        (TrainingDivergedError("the loss of step 3 is not finite"), 1),
        (BudgetError("the budget is spent"), 1),
        (ConfigError("lr"), 0),
    ],
    ids=["diverged", "budget", "config"],
)
def test_what_a_person_must_decide_sends_an_alert(
    checkout: Workspace, raised: SvdError, alerts: int
) -> None:
    with pytest.raises(type(raised)), open_tracker("demo", workspace=checkout, config={}):
        raise raised
    (folder,) = (checkout.root / "wandb").glob("offline-run-*")
    told = [record["alert"] for record in inspect(folder) if record["type"] == "alert"]
    assert [one["text"] for one in told] == [str(raised)] * alerts


class BrokenRun:
    """A W&B whose every call fails."""

    calls = 0

    def log(self, values: object) -> None:
        self.calls += 1
        raise BrokenPipeError("service died")

    finish = log


def test_a_failing_wandb_costs_one_warning_and_no_run(caplog: pytest.LogCaptureFixture) -> None:
    run = BrokenRun()
    tracker = WandbTracker(run)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            tracker.log({"loss": 1.0}, step=step)
        tracker.finish(exit_code=0)
    assert run.calls == 1
    assert len(caplog.records) == 1


def test_an_unwritable_project_costs_one_warning_and_no_run(
    checkout: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    (checkout.root / "wandb").write_text("a file where the folder should be")
    with (
        caplog.at_level(logging.WARNING),
        open_tracker("demo", workspace=checkout, config={}) as tracker,
    ):
        tracker.log({"loss": 1.0}, step=1)
    assert isinstance(tracker, NullTracker)
    assert [r.message for r in caplog.records if r.name.startswith("svd")] == [
        "W&B failed; this run goes on without it"
    ]


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "disabled"), ("RANK", "1")])
def test_disabled_mode_and_other_ranks_track_nothing(
    checkout: Workspace, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with open_tracker("demo", workspace=checkout, config={}) as tracker:
        assert isinstance(tracker, NullTracker)
    assert not (checkout.root / "wandb").exists()


def test_an_unknown_mode_is_named(checkout: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of")
    with (
        pytest.raises(ConfigError, match="WANDB_MODE='of'"),
        open_tracker("demo", workspace=checkout, config={}),
    ):
        pass


def test_run_ids_fit_wandb() -> None:
    assert tracker_run_id("pretrain-video", "0" * 20) == "pretrain-video-" + "0" * 20
    assert len(tracker_run_id("x" * 80, "0" * 20)) == 64
