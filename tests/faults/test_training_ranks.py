"""The curve of a training does not depend on ZeRO stage, world size or an interruption."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from svd.runtime.launch.launcher import JobState, RankJob, follow
from svd.runtime.launch.local import LocalLauncher
from svd.runtime.workspace import Workspace
from svd.training.loop.history import read_rows
from svd.training.stage.job import HistoryRow, RunFolder, TrainingJob
from tests.unit.training.world import DENOISER, make_world, stage_config

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS, STOP_AT = 20, 7
FAST = ("one", "z2")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("z0", "z1", "z3")]


def write_job(workspace: Workspace, name: str, **compute: object) -> Path:
    config = stage_config(
        phase={"num_steps": NUM_STEPS, "micro_batch_size": 2, "ema_decay": 0.7},
        compute=compute,
        log_every_steps=1,
        checkpoint={"every_steps": 100},
        validation={"every_steps": 10, "num_examples": 3, "sigmas": [0.3, 2.0]},
    )
    unet = DENOISER.unet.model_copy(update={"in_channels": 8})
    job = TrainingJob(
        stage="finetune-i2v",
        objective="image-to-video",
        seed=3,
        config=config,
        denoiser=DENOISER.model_copy(update={"unet": unet}),
        data=str(workspace.latents),
        autoencoder=str(workspace.model("autoencoder")),
        init=None,
        run=str(workspace.runs / name),
    )
    folder = RunFolder(workspace.runs / name)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.job.write_text(job.canonical_json())
    return folder.job


def launch(workspace: Workspace, world_size: int, jobs: list[tuple[Path, int | None]]) -> None:
    jobs_file = workspace.root / f"jobs-{world_size}.json"
    jobs_file.write_text(json.dumps([(str(path), stop) for path, stop in jobs]))
    job = RankJob(
        name=f"test-{world_size}",
        module="tests.faults.training_worker",
        arguments=(str(jobs_file),),
        num_processes=world_size,
        threads_per_process=1,
        may_use_gpu=False,
        folder=ROOT,
        outcome=workspace.root / "outcome.json",
    )
    assert list(follow(LocalLauncher(), job))[-1] is JobState.SUCCEEDED


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Runs of one job on one rank, and on two under ZeRO-2."""
    workspace = make_world(tmp_path_factory.mktemp("world"))
    two = write_job(workspace, "z2", num_processes=2, zero_stage=2)
    launch(workspace, 2, [(two, None)])
    launch(workspace, 1, [(write_job(workspace, "one", zero_stage=0), None)])
    return workspace


@pytest.fixture(scope="module")
def variants(finished: Workspace) -> Workspace:
    """Interrupted runs of that job, other ZeRO stages and settings, beside the runs above."""
    two = {
        name: write_job(finished, name, num_processes=2, zero_stage=zero)
        for name, zero in (("z0", 0), ("z1", 1), ("z3", 3), ("part2", 2), ("part3", 3))
    }
    parts = [two["part2"], two["part3"]]
    whole = [two[name] for name in ("z0", "z1", "z3")]
    launch(finished, 2, [*((part, STOP_AT) for part in parts), *((path, None) for path in whole)])
    for part in ("part2", "part3"):
        shutil.copytree(finished.runs / part, finished.runs / f"{part}-on-one")
    one = [
        write_job(finished, "part2-on-one", zero_stage=2),
        write_job(finished, "part3-on-one", zero_stage=1),  # the rest is done by ZeRO-1
        write_job(finished, "bf16", zero_stage=2, precision="bf16"),
        write_job(finished, "offload", zero_stage=2, offload_optimizer=True),
    ]
    launch(finished, 1, [(path, None) for path in one])
    launch(finished, 2, [(part, None) for part in parts])
    return finished


def runs_with(request: pytest.FixtureRequest, name: str) -> Workspace:
    """Return the folder of runs that holds this one, made first if need be."""
    return request.getfixturevalue("finished" if name in FAST else "variants")


def losses(workspace: Workspace, name: str) -> list[float]:
    rows = read_rows(RunFolder(workspace.runs / name).history, HistoryRow)
    return [row.loss for row in rows]


def heldout(workspace: Workspace, name: str) -> list[float]:
    rows = read_rows(RunFolder(workspace.runs / name).history, HistoryRow)
    return [row.heldout_loss for row in rows if row.heldout_loss is not None]


def weights(workspace: Workspace, name: str) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(workspace.runs / name).phase_weights(0, "only"))


@pytest.mark.parametrize("name", ["z2", *OTHERS])
def test_two_ranks_follow_the_curve_of_one(request: pytest.FixtureRequest, name: str) -> None:
    finished = runs_with(request, name)
    curve = losses(finished, name)
    assert len(curve) == NUM_STEPS
    assert curve == pytest.approx(losses(finished, "one"), abs=1e-5, rel=1e-5)
    assert heldout(finished, name) == pytest.approx(heldout(finished, "one"), rel=1e-4)


@pytest.mark.parametrize("name", ["z2", *OTHERS])
def test_every_rank_has_the_gradient_of_the_global_batch(
    request: pytest.FixtureRequest, name: str
) -> None:
    finished = runs_with(request, name)
    first, second = (
        load_file(finished.runs / name / f"gradient-{rank}.safetensors") for rank in (0, 1)
    )
    one = load_file(finished.runs / "one" / "gradient-0.safetensors")
    assert first.keys() == second.keys() == one.keys()
    for key, gradient in first.items():
        assert torch.equal(gradient, second[key])
        torch.testing.assert_close(gradient, one[key], rtol=1e-4, atol=1e-6)
    assert sum(float(gradient.abs().sum()) for gradient in one.values()) > 0


@pytest.mark.slow
def test_an_optimizer_in_cpu_memory_follows_the_same_curve(variants: Workspace) -> None:
    assert losses(variants, "offload") == pytest.approx(losses(variants, "one"), abs=1e-5, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "whole"), [("part2", "z2"), ("part3", "z3")])
def test_an_interrupted_run_ends_in_the_very_bytes_of_an_unbroken_one(
    variants: Workspace, part: str, whole: str
) -> None:
    runs = [RunFolder(variants.runs / name) for name in (part, whole)]
    files = [run.phase_weights(0, "only").read_bytes() for run in runs]
    assert files[0] == files[1]
    assert runs[0].history.read_bytes() == runs[1].history.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part2-on-one", "part3-on-one"])
def test_a_run_goes_on_with_other_ranks_and_another_zero_stage(
    variants: Workspace, name: str
) -> None:
    assert losses(variants, name) == pytest.approx(losses(variants, "one"), abs=1e-5, rel=1e-5)
    resumed, unbroken = weights(variants, name), weights(variants, "one")
    assert resumed.keys() == unbroken.keys()
    for key, tensor in resumed.items():
        torch.testing.assert_close(tensor, unbroken[key], rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_bf16_follows_the_curve_of_fp32(variants: Workspace) -> None:
    assert losses(variants, "bf16") == pytest.approx(losses(variants, "one"), rel=0.02)


def test_a_finished_phase_leaves_weights_and_no_checkpoints(finished: Workspace) -> None:
    folder = RunFolder(finished.runs / "z2").phase(0, "only")
    assert [path.name for path in folder.iterdir()] == ["weights.safetensors"]
