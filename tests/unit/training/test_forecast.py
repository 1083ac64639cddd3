"""What is foretold of a stage agrees with what its network does, and with published counts."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from svd.cli import app
from svd.config.compute import ComputeConfig
from svd.config.load import load_params
from svd.config.model import DenoiserConfig, svd_unet_config
from svd.models.networks import attention, feed_forward
from svd.models.networks.cpu import norm_silu_convolution
from svd.training.loop.gpus import GPUS
from svd.training.objective.loss import denoising_loss
from svd.training.objective.network import build_network
from svd.training.objective.traits import TRAITS
from svd.training.planning.footprint import (
    ClipShape,
    SavedBytes,
    count_parameters,
    measure_step,
)
from svd.training.planning.forecast import Machine, PolicyMemory, forecast_stage
from svd.training.planning.memory import plan_memory
from svd.types.batch import Conditioning
from tests.unit.training.world import DENOISER

ROOT = Path(__file__).parents[3]
IMAGE, TEXT = TRAITS["image-to-video"], TRAITS["text-to-video"]
FULL = DenoiserConfig(unet=svd_unet_config())
SMALL = ClipShape(num_frames=4, height=4, width=8, latent_channels=4)


def test_the_released_network_has_its_published_number_of_parameters():
    """Source: the release's configuration, counted; also what diffusers' model has."""
    count = count_parameters(FULL, "all", IMAGE)
    assert count.total == 1_524_623_082
    assert count_parameters(FULL, "temporal", TEXT).trained == 656_076_838


def test_a_step_at_full_size_is_that_counted_with_other_tools():
    """14 frames of 320x576, counted before on a prototype of the same layout.

    11.60 TFLOP forward; ff+res costs 8.7 % more than its 34.8 TFLOP, which counted attention's
    backward pass without what fused kernels compute again; 5.7 GiB saved.
    """
    shape = ClipShape(num_frames=14, height=40, width=72, latent_channels=4)
    found = measure_step(FULL, IMAGE, shape, trainable="all", precision="bf16", policy="ff+res")
    assert found.forward_flops == pytest.approx(11.60e12, rel=0.001)
    assert found.step_flops / found.model_flops == pytest.approx(1.095, abs=0.01)
    assert found.saved_bytes / 2**30 == pytest.approx(5.7, rel=0.05)
    assert found.saved_bytes < found.peak_bytes < 8 * 2**30


@pytest.mark.parametrize("policy", ["none", "outer", "ff+res", "block"])
def test_a_real_step_saves_the_very_bytes_that_were_foretold(policy, monkeypatch):
    # What is foretold is a GPU's step.
    for module in (attention, feed_forward, norm_silu_convolution):
        monkeypatch.setattr(module, "takes_cpu_paths", lambda _: False)
    network = build_network(
        DENOISER, seed=0, init=None, is_own=False, activation_checkpointing=policy
    )
    latents = torch.zeros(1, SMALL.num_frames, 4, SMALL.height, SMALL.width)
    unet = DENOISER.unet
    saved = SavedBytes(network)
    with saved:
        denoising_loss(
            network,
            latents=latents,
            noise=torch.zeros_like(latents),
            sigma=torch.ones(1),
            conditioning=Conditioning(
                context=torch.zeros(1, 77, unet.context_dim),
                vector=torch.zeros(1, unet.added_cond_dim),
            ),
        )
    foretold = measure_step(DENOISER, TEXT, SMALL, trainable="all", precision="fp32", policy=policy)
    assert foretold.saved_bytes == pytest.approx(saved.total, rel=0.01)


def test_a_policy_that_recomputes_more_saves_less_and_computes_more():
    found = [
        measure_step(DENOISER, TEXT, SMALL, trainable="all", precision="fp32", policy=policy)
        for policy in ("none", "outer", "ff+res", "block")
    ]
    saved, flops = [one.saved_bytes for one in found], [one.step_flops for one in found]
    assert saved == sorted(set(saved), reverse=True)
    assert flops == sorted(set(flops))
    assert len({one.forward_flops for one in found}) == 1


def test_bytes_of_one_shape_give_those_of_another():
    small, large = (
        ClipShape(num_frames=frames, height=height, width=2 * height, latent_channels=4)
        for frames, height in ((8, 16), (14, 24))
    )
    measured = {
        shape: measure_step(DENOISER, TEXT, shape, trainable="all", precision="fp32", policy="none")
        for shape in (small, large)
    }
    saved, _ = PolicyMemory(small, {"none": measured[small]}).scaled_to(large)["none"]
    assert saved == pytest.approx(measured[large].saved_bytes, rel=0.05)


def test_zero_divides_what_it_shards_by_the_ranks():
    count = count_parameters(DENOISER, "all", TEXT)
    memory = {
        (stage, ranks): plan_memory(
            ComputeConfig(zero_stage=stage, num_processes=ranks, precision="bf16"),
            count,
            frozen_bytes=0,
            activation_bytes=0,
            backward_bytes=0,
            on_gpu=False,
        )
        for stage in (1, 2, 3)
        for ranks in (1, 8)
    }
    for stage in (1, 2, 3):
        alone, shared = memory[stage, 1], memory[stage, 8]
        assert shared.moments == pytest.approx(alone.moments / 8, rel=0.01)
        assert shared.masters == pytest.approx(alone.masters / 8, rel=0.01)
    assert memory[3, 8].weights == pytest.approx(memory[3, 1].weights / 8, rel=0.01)
    assert memory[1, 8].held > memory[2, 8].held > memory[3, 8].held


def test_power_averages_take_a_copy_of_the_weights_each():
    count = count_parameters(DENOISER, "all", TEXT)
    without, with_two = (
        plan_memory(
            ComputeConfig(),
            count,
            frozen_bytes=0,
            activation_bytes=0,
            backward_bytes=0,
            on_gpu=False,
            num_power_averages=num,
        )
        for num in (0, 2)
    )
    assert with_two.held - without.held == 2 * 4 * count.trained


@pytest.mark.slow
def test_the_single_gpu_recipe_fits_an_80_gb_gpu_in_every_phase():
    params = load_params(ROOT / "recipes" / "single-gpu.yaml")
    machine = Machine.of("a100-80gb", GPUS["a100-80gb"])
    for phase in forecast_stage("finetune-i2v", params, machine, utilisation=0.3):
        assert phase.fits
        assert phase.best is not None
        assert phase.step_s > 0


def test_the_command_prints_memory_hours_and_cost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    command = ["train", "finetune-i2v", "--plan", "--gpu", "h100", "--price-per-gpu-hour", "2.5"]
    said = CliRunner().invoke(app, command, env={"COLUMNS": "160"})
    assert said.exit_code == 0, said.output
    for words in ("AdamW moments", "activations", "GPU-hours", "at 2.5 per GPU-hour", "ZeRO"):
        assert words in said.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "--plan"], "evaluate is no training stage; there are: pretrain-image"),
        (["finetune-i2v", "--plan", "--gpu", "h1"], "--gpu h1 is not known; known are: a100-80gb"),
        (["finetune-i2v", "--recipe", "paper"], "--recipe paper goes with --plan"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
):
    monkeypatch.chdir(ROOT)
    said = CliRunner().invoke(app, ["train", *arguments])
    assert said.exit_code != 0
    assert sentence in str(said.exception)
