"""Eleven SIGKILLs at random steps of one run, also on changing numbers of processes."""

import os
import random
import signal
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from svd.runtime.workspace import Workspace
from tests.faults.stage_process import log_of, ranks_of, start, steps_made, wait_for
from tests.unit.training.world import DENOISER, TEXT_ENCODER, Recipe, make_world, stage_config

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]
STAGE = "pretrain-video"
RECIPE = "tests.faults.test_training_kills:recipe"
NUM_STEPS, NUM_KILLS = 48, 11


def recipe(num_processes: int) -> tuple[str, Recipe]:
    return STAGE, Recipe(
        seed=11,
        denoiser=DENOISER,
        pretrain_video=stage_config(
            phase={"num_steps": NUM_STEPS},
            text_encoder=TEXT_ENCODER,
            compute={"num_processes": num_processes, "zero_stage": 2},
            checkpoint={"every_steps": 2},
            validation={"every_steps": 24, "num_examples": 2, "sigmas": [0.5, 3.0]},
            log_every_steps=1,
        ),
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_world(tmp_path_factory.mktemp("unbroken"))
    process = start(workspace, RECIPE, 1)
    assert process.wait(timeout=900) == 0, log_of(workspace)
    return workspace


def num_resumes(workspace: Workspace) -> int:
    return log_of(workspace).count("resumed from a checkpoint")


@pytest.mark.parametrize(
    "world_sizes",
    [[1] * (NUM_KILLS + 1), [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1]],
    ids=["one process", "1, 2, 1 processes"],
)
def test_a_run_killed_eleven_times_ends_in_the_weights_of_an_unbroken_one(
    unbroken: Workspace, tmp_path_factory: pytest.TempPathFactory, world_sizes: list[int]
) -> None:
    killed = make_world(tmp_path_factory.mktemp("killed"))
    chance = random.Random(4)
    kill_at = sorted(chance.sample(range(7, NUM_STEPS - 3), NUM_KILLS))
    for attempt, step in enumerate(kill_at):
        process = start(killed, RECIPE, world_sizes[attempt])
        # Rows of the attempt before, which may have come further, go as this one resumes.
        wait_for(killed, process, lambda attempt=attempt: num_resumes(killed) == attempt)
        wait_for(killed, process, lambda step=step: steps_made(killed) >= step)
        time.sleep(chance.uniform(0, 0.2))  # anywhere in a step, a save or a row
        victims = [process.pid, *(rank.pid for rank in ranks_of(process))]
        chosen = chance.choice(victims)
        ranks = ranks_of(process)
        os.kill(chosen, signal.SIGKILL)
        process.wait(timeout=120)
        assert process.returncode != 0
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert not alive
    process = start(killed, RECIPE, world_sizes[-1])
    assert process.wait(timeout=900) == 0, log_of(killed)
    assert num_resumes(killed) == NUM_KILLS

    files = [world.model(STAGE) / "weights.safetensors" for world in (killed, unbroken)]
    if set(world_sizes) == {1}:
        assert files[0].read_bytes() == files[1].read_bytes()
        history = [world.model(STAGE) / "history.jsonl" for world in (killed, unbroken)]
        assert history[0].read_bytes() == history[1].read_bytes()
    ours, theirs = load_file(files[0]), load_file(files[1])
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)
