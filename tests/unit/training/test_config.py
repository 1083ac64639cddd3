"""Impossible recipes end in a sentence that names the keys."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.training.world import stage_config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compute": {"num_processes": 3}}, "data.batch_size=4 of phase only is not a multiple of"),
        ({"compute": {"precision": "bf16"}}, "compute.precision=bf16 needs compute.zero_stage"),
        ({"compute": {"offload_optimizer": True}}, "compute.offload_optimizer=true needs"),
        ({"phase": {"lr_warmup_steps": 6}}, "lr_warmup_steps=6 of phase only must be less than"),
        (
            {"phase": {"dropout": {"context": 0.5, "cond_latents": 0.4, "both": 0.2}}},
            "= 1.1 exceeds 1",
        ),
        (
            {"phase": {"data": {"height": 16, "width": 32, "num_frames": 1, "batch_size": 4}}},
            "trainable=all of phase only cannot be with data.num_frames=1",
        ),
        (
            {"validation": {"every_steps": 1, "num_examples": 1, "sigmas": [1.0, 0.0]}},
            "validation.sigmas has 0; each must be above 0",
        ),
        ({"checkpoint": {"every_steps": 1, "keep_last": 1}}, "greater than or equal to 2"),
    ],
    ids=["batch", "bf16", "offload", "warmup", "dropout", "stills", "sigmas", "keep"],
)
def test_it_says_what_is_wrong(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence.replace("(", r"\(")):
        stage_config(**changes)


def test_two_phases_of_one_name_are_refused() -> None:
    phase = stage_config().model_dump(mode="json")["phases"][0]
    with pytest.raises(ValidationError, match="names that are not unique: only, only"):
        stage_config(phases=[phase, phase])
