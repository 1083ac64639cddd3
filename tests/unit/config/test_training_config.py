"""What a training stage starts from, phase by phase, and which machines share its ranks."""

from typing import Any

import pytest
import yaml

from svd.config.compute import ComputeConfig
from svd.config.load import parse_section
from svd.config.training import TrainingStageConfig
from svd.errors import ConfigError


def phase(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "num_steps": 10,
        "data": {"height": 16, "width": 16, "num_frames": 2, "batch_size": 4},
        "micro_batch_size": 1,
        "lr": 0.1,
        "noise": {"p_mean": 0.0, "p_std": 1.0},
        "ema_decay": 0.9,
        **changes,
    }


def stage(*phases: dict[str, Any], **changes: Any) -> TrainingStageConfig:
    tree = {
        "init": "scratch",
        "phases": list(phases) or [phase("only")],
        "checkpoint": {"every_steps": 5},
        "validation": {"every_steps": 5, "num_examples": 1, "sigmas": [1.0]},
        **changes,
    }
    return parse_section(yaml.safe_dump(tree), TrainingStageConfig, origin="recipe")


def test_two_phases_may_start_from_the_same_one():
    config = stage(phase("base"), phase("short"), phase("long", init="base"))
    assert [config.phase_before(index) for index in range(3)] == [None, 0, 0]
    assert [p.name for p in config.phases_to(2)] == ["base", "long"]


@pytest.mark.parametrize("init", ["later", "itself", "nowhere"])
def test_a_phase_starts_from_one_before_it_or_the_recipe_is_bad(init):
    with pytest.raises(ConfigError, match=f"init={init} of phase itself is no phase before it"):
        stage(phase("first"), phase("itself", init=init), phase("later"))


@pytest.mark.parametrize(
    ("init", "from_stage", "from_file"),
    [
        ("scratch", None, None),
        ("pretrain-image", "pretrain-image", None),
        ("weights/image.safetensors", None, "weights/image.safetensors"),
    ],
)
def test_a_stage_starts_from_nothing_a_stage_or_a_file(init, from_stage, from_file):
    config = stage(init=init)
    assert (config.init_stage, config.init_file) == (from_stage, from_file)


@pytest.mark.parametrize("init", ["pretrain", "model.ckpt"])
def test_any_other_start_is_refused(init):
    with pytest.raises(ConfigError, match=f"init={init} is none of scratch, pretrain-image"):
        stage(init=init)


def compute(**changes: Any) -> ComputeConfig:
    return parse_section(yaml.safe_dump(changes), ComputeConfig, origin="recipe")


def test_ranks_stay_on_this_machine_unless_the_recipe_names_a_cluster():
    assert compute(num_processes=3).processes_per_node == 3


SLURM = {"kind": "slurm", "nodes": 2, "gpus_per_node": 8}


def test_nodes_share_the_ranks_equally():
    assert compute(num_processes=16, launcher=SLURM).processes_per_node == 8


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        (15, "compute.num_processes=15 is not a multiple of compute.launcher.nodes=2"),
        (8, "is 4 per node, but compute.launcher.gpus_per_node=8; each rank has one GPU"),
    ],
)
def test_ranks_that_do_not_fit_the_nodes_are_refused(ranks, said):
    with pytest.raises(ConfigError, match=said):
        compute(num_processes=ranks, launcher=SLURM)


@pytest.mark.parametrize("limit", ["1:00:00", "3-00:00:00", "90"])
def test_a_time_limit_is_written_as_sbatch_takes_it(limit):
    assert compute(num_processes=16, launcher=SLURM | {"time_limit": limit})


def test_another_time_limit_is_refused():
    with pytest.raises(ConfigError, match="time_limit"):
        compute(num_processes=16, launcher=SLURM | {"time_limit": "a day"})
