"""Adapters change nothing until they are told to, and come off without a trace."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from svd.config.lora import LoraConfig
from svd.config.model import UNetConfig
from svd.errors import CheckpointError, ConfigError
from svd.models.adapters.lora import (
    Adapter,
    Factors,
    add_adapter,
    merge_adapters,
    new_adapter,
    projections,
    remove_adapter,
    set_strengths,
    take_adapter,
    target_names,
    unmerge_adapters,
)
from svd.models.adapters.lora_file import load_adapter, save_adapter
from svd.models.checkpoints.weights import save_state
from svd.models.networks.unet import SpatioTemporalUNet
from tests.unit.models.test_diffusers_parity import IDS, build_unet_oracle, use_released_eps

Inputs = Callable[..., tuple[Tensor, ...]]
ALL = LoraConfig(
    rank=3,
    alpha=6.0,
    targets=(
        "attn1.to_q",
        "attn1.to_k",
        "attn1.to_v",
        "attn1.to_out",
        "attn2.to_v",
        "attn2.to_out",
    ),
)


def random_adapter(unet: SpatioTemporalUNet, config: LoraConfig, seed: int) -> Adapter:
    """An adapter as training would leave it: neither factor is zero."""
    generator = torch.Generator().manual_seed(seed)
    fresh = new_adapter(unet, config, generator)
    factors = {
        place: Factors(down, 0.3 * torch.randn(up.shape, generator=generator))
        for place, (down, up) in fresh.factors.items()
    }
    return Adapter(alpha=fresh.alpha, factors=factors)


@torch.no_grad()
def run(unet: SpatioTemporalUNet, inputs: Inputs) -> Tensor:
    return unet(*inputs())


def test_the_released_size_has_the_papers_number_of_adapter_weights() -> None:
    config = UNetConfig(
        in_channels=8,
        model_channels=320,
        channel_mult=(1, 2, 4, 4),
        attention_factors=(1, 2, 4),
        head_dim=64,
        context_dim=1024,
        added_cond_dim=768,
    )
    with torch.device("meta"):
        unet = SpatioTemporalUNet(config)
        parts = projections(unet)
    names = target_names(unet, LoraConfig().targets)
    assert len(names) == 16 * 4
    count = sum(16 * (parts[name].in_features + parts[name].out_features) for name in names)
    assert count == 1_597_440  # paper.md, 2.7: 1.60 M


def test_an_untrained_adapter_and_one_of_strength_zero_change_no_bit(
    unet: SpatioTemporalUNet, unet_inputs: Inputs
) -> None:
    base = run(unet, unet_inputs)
    add_adapter(unet, "new", new_adapter(unet, ALL, torch.Generator().manual_seed(0)), origin="t")
    assert torch.equal(run(unet, unet_inputs), base)
    add_adapter(unet, "old", random_adapter(unet, ALL, 1), origin="t")
    assert not torch.allclose(run(unet, unet_inputs), base, atol=1e-2)
    set_strengths(unet, "old", [0.0])
    assert torch.equal(run(unet, unet_inputs), base)


def test_merged_computes_what_unmerged_does_and_unmerging_restores_the_bytes(
    unet: SpatioTemporalUNet, unet_inputs: Inputs
) -> None:
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    base = run(unet, unet_inputs)
    for seed, (name, strength) in enumerate({"a": 0.7, "b": -0.4}.items()):
        add_adapter(unet, name, random_adapter(unet, ALL, seed), origin="t")
        set_strengths(unet, name, [strength])
    beside = run(unet, unet_inputs)
    assert (beside - base).abs().max() > 1e-2
    merge_adapters(unet)
    assert torch.allclose(run(unet, unet_inputs), beside, rtol=0, atol=1e-11)
    merge_adapters(unet)  # once more changes nothing
    unmerge_adapters(unet)
    assert torch.equal(run(unet, unet_inputs), beside)
    for name in ("a", "b"):
        remove_adapter(unet, name)
    after = unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(run(unet, unet_inputs), base)


def test_mixing_adapters_is_adding_their_updates(
    unet: SpatioTemporalUNet, unet_inputs: Inputs
) -> None:
    one, two = (random_adapter(unet, ALL, seed) for seed in (0, 1))
    add_adapter(unet, "one", one, origin="t")
    add_adapter(unet, "two", two, origin="t")
    set_strengths(unet, "one", [0.5])
    mixed = run(unet, unet_inputs)
    remove_adapter(unet, "one")
    remove_adapter(unet, "two")
    sums = {
        place: Factors(
            torch.cat([factors.down, two.factors[place].down]),
            # alpha / rank is halved by the doubled rank
            2 * torch.cat([0.5 * factors.up, two.factors[place].up], dim=1),
        )
        for place, factors in one.factors.items()
    }
    add_adapter(unet, "sum", Adapter(alpha=ALL.alpha, factors=sums), origin="t")
    assert torch.allclose(run(unet, unet_inputs), mixed, rtol=0, atol=1e-11)


def test_strengths_per_frame_equal_one_strength_where_they_are_equal(
    unet: SpatioTemporalUNet, unet_inputs: Inputs
) -> None:
    over_time = LoraConfig(rank=3)
    add_adapter(unet, "a", random_adapter(unet, over_time, 0), origin="t")
    set_strengths(unet, "a", [0.6])
    constant = run(unet, unet_inputs)
    set_strengths(unet, "a", [0.6] * 5)
    assert torch.allclose(run(unet, unet_inputs), constant, rtol=0, atol=1e-12)
    set_strengths(unet, "a", [0.6, 0.6, 0.0, 0.0, 0.0])
    switched = run(unet, unet_inputs)
    assert not torch.allclose(switched, constant, atol=1e-3)
    with pytest.raises(ConfigError, match="cannot be merged"):
        merge_adapters(unet)
    set_strengths(unet, "a", [0.6] * 4)
    with pytest.raises(ConfigError, match="each of 4 frames"):
        run(unet, unet_inputs)


def test_only_an_adapters_own_weights_get_a_gradient(
    unet: SpatioTemporalUNet, unet_inputs: Inputs
) -> None:
    unet.requires_grad_(requires_grad=False)
    add_adapter(unet, "a", random_adapter(unet, ALL, 0), origin="t")
    unet(*unet_inputs()).square().sum().backward()
    with_gradient = {name for name, p in unet.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, _ in unet.named_parameters() if ".adapters.a." in n}
    assert all(p.grad.abs().max() > 0 for p in unet.parameters() if p.grad is not None)


def test_a_file_holds_the_adapter_and_equal_adapters_give_equal_bytes(
    unet: SpatioTemporalUNet, tmp_path: Path
) -> None:
    adapter = random_adapter(unet, ALL, 0)
    save_adapter(tmp_path / "a.safetensors", adapter, unet.config)
    read = load_adapter(tmp_path / "a.safetensors", unet)
    assert read.alpha == adapter.alpha
    assert read.factors.keys() == adapter.factors.keys()
    assert all(torch.equal(read.factors[p].up, f.up) for p, f in adapter.factors.items())
    add_adapter(unet, "a", read, origin="t")
    save_adapter(tmp_path / "b.safetensors", take_adapter(unet, "a"), unet.config)
    again = load_file(tmp_path / "b.safetensors")
    first = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(again[name].float(), tensor) for name, tensor in first.items())


@pytest.mark.parametrize("reader", ["diffusers", "peft"])
def test_the_file_loads_in_diffusers_and_peft_and_gives_the_same_output(
    unet: SpatioTemporalUNet, unet_inputs: Inputs, tmp_path: Path, reader: str
) -> None:
    peft = pytest.importorskip("peft")
    loaders = pytest.importorskip("diffusers.loaders.peft")
    adapter = random_adapter(unet, ALL, 0)
    save_adapter(tmp_path / "pytorch_lora_weights.safetensors", adapter, unet.config)
    oracle = build_unet_oracle(unet.config, unet)
    use_released_eps(oracle)
    if reader == "diffusers":
        mixed = type("UNet", (type(oracle), loaders.PeftAdapterMixin), {})
        oracle.__class__ = mixed
        name = "pytorch_lora_weights.safetensors"
        oracle.load_lora_adapter(
            str(tmp_path), prefix="unet", weight_name=name, adapter_name="ours"
        )
    else:
        state = load_file(tmp_path / "pytorch_lora_weights.safetensors")
        state = {name.removeprefix("unet."): tensor for name, tensor in state.items()}
        modules = sorted(
            {name.removesuffix(".lora_A.weight") for name in state if "lora_A" in name}
        )
        config = peft.LoraConfig(r=3, lora_alpha=6.0, target_modules=modules)
        peft.inject_adapter_in_model(config, oracle, adapter_name="ours")
        told = peft.set_peft_model_state_dict(oracle, state, adapter_name="ours")
        assert not told.unexpected_keys
    oracle.double()
    add_adapter(unet, "a", adapter, origin="t")
    latents, c_noise, context, vector = unet_inputs()
    with torch.no_grad():
        ours = unet(latents, c_noise, context, vector)
        theirs = oracle(latents, c_noise, context, IDS.double()).sample
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
    remove_adapter(unet, "a")
    assert not torch.allclose(run(unet, unet_inputs), theirs, atol=1e-2)


def test_an_adapter_of_another_width_or_format_is_one_clear_error(
    unet: SpatioTemporalUNet, unet_config: UNetConfig, tmp_path: Path
) -> None:
    wider = SpatioTemporalUNet(unet_config.model_copy(update={"model_channels": 128}))
    path = tmp_path / "wide.safetensors"
    save_adapter(path, random_adapter(wider, ALL, 0), wider.config)
    with pytest.raises(CheckpointError, match=r"wide.safetensors: .* maps 128 to 128 .* width"):
        add_adapter(unet, "a", load_adapter(path, unet), origin=str(path))
    deeper = SpatioTemporalUNet(unet_config.model_copy(update={"channel_mult": (1, 2, 2, 2)}))
    save_adapter(path, random_adapter(deeper, ALL, 0), deeper.config)
    with pytest.raises(CheckpointError, match=r"wide.safetensors: .* another depth|another width"):
        add_adapter(unet, "a", load_adapter(path, unet), origin=str(path))
    save_state({"unet.conv_in.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match="not an adapter in the format of peft"):
        load_adapter(path, unet)
    good = random_adapter(unet, ALL, 0)
    add_adapter(unet, "a", good, origin="t")
    with pytest.raises(ConfigError, match="called a is there already"):
        add_adapter(unet, "a", good, origin="t")
    with pytest.raises(ConfigError, match="no adapter is called b; there are: a"):
        set_strengths(unet, "b", [1.0])


def test_metadata_is_what_diffusers_expects(unet: SpatioTemporalUNet, tmp_path: Path) -> None:
    base = pytest.importorskip("diffusers.loaders.lora_base")
    path = tmp_path / "a.safetensors"
    save_adapter(path, random_adapter(unet, ALL, 0), unet.config)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()[base.LORA_ADAPTER_METADATA_KEY])
    assert told["unet.r"] == 3
    assert told["unet.lora_alpha"] == 6.0
