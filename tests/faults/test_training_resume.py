"""A training stage that is killed, again and again, ends in the bytes of an unbroken one."""

import json
import re
import signal

import psutil
import pytest

from svd.errors import LaunchError
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.stage import stages
from tests.faults.stage_process import log_of, ranks_of, run_folder, start, steps_made, wait_for
from tests.unit.training.world import DENOISER, TEXT_ENCODER, Recipe, make_world, stage_config

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1200)]
STAGE = "pretrain-video"
RECIPE = "tests.faults.test_training_resume:recipe"


def recipe() -> tuple[str, Recipe]:
    """Two phases on two ranks under ZeRO-2."""
    first = stage_config(phase={"name": "first", "num_steps": 8}).phases[0]
    second = stage_config(phase={"name": "second", "num_steps": 22, "lr": 5.0e-4}).phases[0]
    return STAGE, Recipe(
        seed=5,
        denoiser=DENOISER,
        pretrain_video=stage_config(
            phases=[first.model_dump(mode="json"), second.model_dump(mode="json")],
            text_encoder=TEXT_ENCODER,
            compute={"num_processes": 2, "zero_stage": 2},
            checkpoint={"every_steps": 3},
            validation={"every_steps": 6, "num_examples": 2, "sigmas": [0.5, 3.0]},
            log_every_steps=1,
        ),
    )


def damage_newest_checkpoint(workspace: Workspace) -> str:
    newest = max(run_folder(workspace).glob("*/checkpoints/step-*/checkpoint.json")).parent
    path = newest / "rank-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 0x10
    path.write_bytes(content)
    return str(path)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Workspace]:
    """The same inputs twice; on the first, the stage has run without a break."""
    unbroken = make_world(tmp_path_factory.mktemp("unbroken"))
    killed = make_world(tmp_path_factory.mktemp("killed"))
    process = start(unbroken, RECIPE)
    assert process.wait(timeout=600) == 0, log_of(unbroken)
    return unbroken, killed


def test_kills_of_every_kind_end_in_the_bytes_of_an_unbroken_run(
    worlds: tuple[Workspace, Workspace],
) -> None:
    unbroken, killed = worlds

    # The door itself, in the first phase: its ranks must not live on.
    process = start(killed, RECIPE)
    saved = "0-first/checkpoints/step-000000003/checkpoint.json"
    wait_for(
        killed, process, lambda: steps_made(killed) >= 5 and (run_folder(killed) / saved).is_file()
    )
    ranks = ranks_of(process)
    assert len(ranks) == 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive

    # One rank, in the second phase; the door says so and ends.
    process = start(killed, RECIPE)
    wait_for(killed, process, lambda: steps_made(killed) >= 15)
    ranks_of(process)[1].kill()
    assert process.wait(timeout=120) == 1
    assert re.search("resumed from a checkpoint phase_step=[36]", log_of(killed))
    assert "LaunchError: pretrain-video: the ranks died" in log_of(killed)

    # A polite request, after the newest checkpoint was damaged: nothing is lost but that one.
    damaged = damage_newest_checkpoint(killed)
    process = start(killed, RECIPE)
    wait_for(killed, process, lambda: damaged in log_of(killed) and steps_made(killed) >= 19)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 1
    assert f"{damaged}: sha256 is" in log_of(killed)
    assert "stopped on request after step" in log_of(killed)
    stopped_at = steps_made(killed)

    process = start(killed, RECIPE)
    assert process.wait(timeout=600) == 0, log_of(killed)
    assert f"resumed from a checkpoint phase_step={stopped_at - 8}" in log_of(killed)

    for name in ("weights.safetensors", "history.jsonl"):
        ours = (killed.model(STAGE) / name).read_bytes()
        assert ours == (unbroken.model(STAGE) / name).read_bytes(), name
    cards = [json.loads((w.model(STAGE) / "model.json").read_text()) for w in worlds]
    assert cards[0] == cards[1]


def test_a_finished_stage_is_published_again_without_ranks(
    worlds: tuple[Workspace, Workspace],
) -> None:
    unbroken, _ = worlds
    out = unbroken.model(STAGE) / "weights.safetensors"
    content = out.read_bytes()
    out.unlink()

    class NoLauncher:
        def submit(self, job: object) -> str:
            raise LaunchError("no rank is needed")

        poll = stop = kill = submit

    report = stages.run(*recipe(), unbroken, tracker=NullTracker(), launcher=NoLauncher())
    assert out.read_bytes() == content
    assert report.summary["steps"] == 30
