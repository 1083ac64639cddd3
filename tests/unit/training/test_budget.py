"""A run counts what it spends over all attempts, and ends in good order when that is the budget."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from svd.errors import BudgetError, ConfigError
from svd.runtime.cost import VARIABLE
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.tracking import NullTracker
from svd.training.loop.history import read_rows
from svd.training.loop.ledger import AttemptCost, Ledger, spent_s
from svd.training.loop.trainer import Trainer
from svd.training.stage import stages
from svd.training.stage.job import Outcome, RunFolder, SpeedRow, TrainingJob
from svd.training.stage.plan import plan_stage
from svd.types.base import write_records
from svd.types.budget import Budget
from tests.unit.training.solo import StopAt, make_job, only_rank, train
from tests.unit.training.test_stages import Ranks
from tests.unit.training.world import DENOISER, Recipe, make_world, stage_config

NEXT_TO_NOTHING = Budget(amount=1e-9, price_per_device_hour=1.0)
PLENTY = Budget(amount=1e9, price_per_device_hour=1.0)


@pytest.fixture(scope="module", autouse=True)
def rank() -> Iterator[None]:
    with only_rank():
        yield


def outcome_of(job: TrainingJob) -> Outcome:
    return Trainer(job, torch.device("cpu"), StopAt(None)).run()


def test_what_killed_attempts_spent_counts(tmp_path: Path) -> None:
    write_records(tmp_path / "1.json", [AttemptCost(num_devices=8, wall_s=450.0)])
    write_records(tmp_path / "2.json", [AttemptCost(num_devices=4, wall_s=900.0)])
    assert spent_s(tmp_path) == 7200.0
    budget = Budget(amount=6.0, price_per_device_hour=3.0)
    ledger = Ledger(tmp_path, num_devices=2, budget=budget, keeps=True)
    assert ledger.spent_s >= 7200.0
    assert ledger.is_spent
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_a_spent_budget_stops_with_all_saved_and_a_larger_one_ends_in_the_same_bytes(
    tmp_path: Path,
) -> None:
    world = make_world(tmp_path)
    unbroken = train(make_job(world, name="unbroken"))
    job = make_job(world, name="bounded")
    stopped = outcome_of(job.model_copy(update={"budget": NEXT_TO_NOTHING}))
    assert (stopped.kind, stopped.step, stopped.error) == ("failed", 1, "BudgetError")
    assert "finetune-i2v.compute.budget=1e-09" in stopped.message
    assert "after step 1, all of which is saved" in stopped.message
    finished = outcome_of(job.model_copy(update={"budget": PLENTY}))
    assert finished.kind == "finished"
    folder = RunFolder(Path(job.run))
    assert len(list(folder.spent.glob("*.json"))) == 2
    weights = folder.phase_weights(0, "only").read_bytes()
    assert weights == unbroken.phase_weights(0, "only").read_bytes()
    hours = [row.device_s for row in read_rows(folder.speed, SpeedRow)]
    assert hours == sorted(hours)
    assert hours[-1] <= spent_s(folder.spent)


def recipe(**compute: object) -> Recipe:
    return Recipe(seed=1, denoiser=DENOISER, finetune_i2v=stage_config(compute=compute))


def test_nothing_is_started_when_the_budget_is_spent(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    bounded = recipe(budget=2.0, price_per_device_hour=4.0)
    tracker, ranks = NullTracker(), Ranks(lambda job, folder: None)
    plan = plan_stage("finetune-i2v", bounded, world, name=stage_fingerprint(world, "finetune-i2v"))
    folder = RunFolder(Path(plan.job.run))
    write_records(folder.spent / "1.json", [AttemptCost(num_devices=2, wall_s=900.0)])
    with pytest.raises(BudgetError, match=r"2 of finetune-i2v.compute.budget=2 \(0.5 device-hours"):
        stages.run("finetune-i2v", bounded, world, tracker=tracker, launcher=ranks)
    assert ranks.jobs == []


def test_a_budget_without_a_price_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=VARIABLE):
        plan_stage("finetune-i2v", recipe(budget=2.0), world, name="x")
    monkeypatch.setenv(VARIABLE, "a lot")
    with pytest.raises(ConfigError, match="'a lot'"):
        plan_stage("finetune-i2v", recipe(budget=2.0), world, name="x")
    monkeypatch.setenv(VARIABLE, "2")
    plan = plan_stage("finetune-i2v", recipe(budget=2.0), world, name="x")
    assert plan.job.budget == Budget(amount=2.0, price_per_device_hour=2.0)
