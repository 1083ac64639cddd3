"""Two real ranks hold, under every ZeRO stage, what the plan says."""

import json
from pathlib import Path

import pytest

from svd.config.compute import ComputeConfig
from svd.runtime.launch.launcher import JobState, RankJob, follow
from svd.runtime.launch.local import LocalLauncher
from svd.training.objective.traits import TRAITS
from svd.training.planning.footprint import count_parameters
from svd.training.planning.memory import plan_memory
from tests.faults.memory_worker import CASES
from tests.unit.training.world import DENOISER

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def test_ranks_hold_what_was_planned(tmp_path: Path) -> None:
    """Between two micro-batches, buffers may or may not be there; all else is to the byte."""
    out = tmp_path / "held.json"
    job = RankJob(
        name="memory",
        module="tests.faults.memory_worker",
        arguments=(str(out),),
        num_processes=2,
        threads_per_process=1,
        may_use_gpu=False,
        folder=ROOT,
        outcome=tmp_path / "outcome.json",
    )
    assert list(follow(LocalLauncher(), job))[-1] is JobState.SUCCEEDED
    count = count_parameters(DENOISER, "all", TRAITS["text-to-video"])
    for (stage, precision), held in zip(CASES, json.loads(out.read_text()), strict=True):
        compute = ComputeConfig(zero_stage=stage, precision=precision, num_processes=2)
        plan = plan_memory(
            compute,
            count,
            frozen_bytes=0,
            activation_bytes=0,
            backward_bytes=0,
            on_gpu=False,
        )
        low, high = plan.held - plan.buffers, plan.held
        assert 0.995 * low <= held <= 1.005 * high, f"ZeRO-{stage}, {precision}"
