"""What is trained, what decays, and how fast."""

from typing import Any

import pytest
import torch

from svd.config.training import OptimizerConfig, PhaseConfig
from svd.errors import ConfigError
from svd.training.checkpoints.ema import ShardedEma, ema_decay_at
from svd.training.loop.optim import build_adamw, freeze_others, is_trainable, lr_at
from svd.training.objective.network import build_network
from svd.types.batch import Conditioning
from tests.unit.training.world import DENOISER, stage_config


def phase(**changes: Any) -> PhaseConfig:
    return stage_config(phase=changes).phases[0]


def network() -> torch.nn.Module:
    return build_network(DENOISER, seed=0, init=None, is_own=False, activation_checkpointing="none")


def test_spatial_and_temporal_parameters_divide_the_network() -> None:
    names = [name for name, _ in network().named_parameters()]
    spatial = {name for name in names if is_trainable(name, "spatial")}
    temporal = {name for name in names if is_trainable(name, "temporal")}
    assert spatial | temporal == set(names)
    assert not spatial & temporal
    assert all("time_stack" in n or "time_mixer" in n or "time_pos_embed" in n for n in temporal)


def test_time_embedding_is_the_mlp_on_c_noise_alone() -> None:
    names = [name for name, _ in network().named_parameters()]
    trained = [name for name in names if is_trainable(name, "time-embedding")]
    assert sorted(name.removeprefix("denoiser.unet.") for name in trained) == [
        "time_embed.0.bias",
        "time_embed.0.weight",
        "time_embed.2.bias",
        "time_embed.2.weight",
    ]


def test_freezing_counts_what_is_left_to_train() -> None:
    module = network()
    total = sum(p.numel() for p in module.parameters())
    assert freeze_others(module, "all") == total
    assert freeze_others(module, "spatial") + freeze_others(module, "temporal") == total


def test_every_parameter_left_to_train_gets_a_gradient_from_one_token() -> None:
    module = build_network(
        DENOISER.model_copy(update={"unet": DENOISER.unet.model_copy(update={"in_channels": 8})}),
        seed=0,
        init=None,
        is_own=False,
        activation_checkpointing="none",
    )
    freeze_others(module, "all", one_token=True)
    conditioning = Conditioning(
        context=torch.randn(2, 1, 16),
        vector=torch.randn(2, 24),
        cond_latents=torch.randn(2, 3, 4, 4, 8),
    )
    module(torch.randn(2, 3, 4, 4, 8), torch.ones(2), conditioning).square().mean().backward()
    trained = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(".attn2.to_q" in n or ".attn2.to_k" in n or ".norm2" in n for n in frozen)


def test_a_set_without_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="trainable=temporal names no parameter"):
        freeze_others(torch.nn.Linear(2, 2), "temporal")


def test_norms_biases_and_mix_factors_do_not_decay() -> None:
    module = network()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decayed, spared = build_adamw(module.parameters(), OptimizerConfig()).param_groups
    assert decayed["weight_decay"] == 0.01
    assert spared["weight_decay"] == 0.0
    spared_names = [names[id(parameter)] for parameter in spared["params"]]
    assert all(
        name.endswith((".bias", "norm.weight", "mix_factor"))
        or "norm" in name
        or name.split(".")[-2].isdigit()
        for name in spared_names
    )
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert any(name.endswith("mix_factor") for name in spared_names)
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.5), (11, 0.125)],
    ids=["first", "warm", "peak", "halfway", "last"],
)
def test_linear_decay_rises_to_the_peak_and_falls_towards_zero(step: int, expected: float) -> None:
    config = phase(num_steps=12, lr=1.0, lr_warmup_steps=4, lr_decay="linear")
    assert lr_at(config, step) == pytest.approx(expected)


def test_cosine_decay_is_half_of_the_peak_halfway() -> None:
    config = phase(num_steps=12, lr=2.0, lr_warmup_steps=4, lr_decay="cosine")
    assert lr_at(config, 8) == pytest.approx(1.0)
    assert [lr_at(config, s) for s in range(4, 12)] == sorted(
        (lr_at(config, s) for s in range(4, 12)), reverse=True
    )


def test_constant_rate_is_constant_after_the_warmup() -> None:
    config = phase(num_steps=12, lr=2.0, lr_warmup_steps=4)
    assert {lr_at(config, step) for step in range(4, 12)} == {2.0}


def test_the_average_forgets_its_start_within_a_few_updates() -> None:
    master = torch.zeros(3)
    ema = ShardedEma([master], decay=0.9999)
    master.fill_(1.0)
    for _ in range(30):
        ema.update()
    assert ema.flats[0].min().item() > 0.98
    assert ema_decay_at(0.9999, 10**6) == 0.9999


def test_the_average_weighs_the_newest_weights_by_one_minus_decay() -> None:
    master = torch.zeros(2)
    ema = ShardedEma([master], decay=0.5)
    ema.num_updates = 1000
    master.fill_(1.0)
    ema.update()
    assert ema.flats[0].tolist() == [0.5, 0.5]
    master.fill_(2.0)
    ema.update()
    assert ema.flats[0].tolist() == [1.25, 1.25]
