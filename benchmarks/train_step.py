"""A training step of ours against a straightforward diffusers + accelerate trainer.

Same size, batch, precision and optimizer; each side runs in processes of its own, in turn, so that
neither inherits the other's memory. The peer is what a careful user writes: accelerate prepares a
UNetSpatioTemporalConditionModel, with its gradient checkpointing if asked for; per step it draws
noise, takes the v-prediction loss, clips, steps AdamW and updates an EMA. Ours is the module, loss,
optimizer and EMA of `svd.training` under its DeepSpeed engine (ZeRO-0, one process).

    python benchmarks/train_step.py [--device cpu|cuda] [--steps N] [--repeats N] [--frames N]
                                    [--ours none|outer|ff+res|block] [--peer none|checkpointing]

Ours runs as its ranks do: on a CPU they keep freed memory (svd/runtime/heap.py). Ratios are
medians over rounds of one run of each side.

Last line: JSON with `examples_per_s_ratio_vs_diffusers` and `peak_memory_ratio_vs_diffusers`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from svd.runtime.heap import heap_environment

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Size:
    """What both sides train on."""

    channels: int = 64  # of the first level; levels are 1, 2, 4, 4 times as wide
    head_dim: int = 32
    context_dim: int = 64
    batch: int = 1  # clips
    # On the CPU the peer's activations and its states stand to each other as in training
    # the real model at 14x576x1024, the size at which it ends: about 2.5 to 1. With --frames 8 it
    # is 0.9 to 1, as at 14x320x576.
    frames: int = 24
    height: int = 24  # of the latents
    width: int = 24


SIZES = {
    "cpu": Size(),
    "cuda": Size(channels=320, head_dim=64, context_dim=1024, frames=14, height=40, width=72),
}
MULT = (1, 2, 4, 4)
ID_DIM = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per run")
    parser.add_argument("--frames", type=int, help="of a clip; default: see Size")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side")
    parser.add_argument("--ours", choices=("none", "outer", "ff+res", "block"), default="outer")
    parser.add_argument("--peer", choices=("none", "checkpointing"), default="none")
    parser.add_argument("--side", choices=("ours", "diffusers"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options)))
        return
    runs: dict[str, list[dict[str, float]]] = {"diffusers": [], "ours": []}
    for _ in range(options.repeats):
        for side, results in runs.items():
            results.append(run_in_subprocess(side, options.device))
            shown = " ".join(f"{key}={value:.4g}" for key, value in results[-1].items())
            print(f"{side:<10} {shown}", flush=True)
    keys = ("examples_per_cpu_s" if options.device == "cpu" else "examples_per_s", "peak")
    speed, memory = (
        {side: statistics.median(r[key] for r in results) for side, results in runs.items()}
        for key in keys
    )
    speed_ratio, memory_ratio = (median_ratio(runs, key) for key in keys)
    table = {
        "device": options.device,
        "ours_recomputes": options.ours,
        "peer_recomputes": options.peer,
        "size": asdict(size_of(options)),
        "examples_per_s": speed,
        "peak_bytes": memory,
        "parameters": runs["ours"][0]["parameters"],
        "examples_per_s_ratio_vs_diffusers": speed_ratio,
        "peak_memory_ratio_vs_diffusers": memory_ratio,
    }
    print(json.dumps(table))


def median_ratio(runs: dict[str, list[dict[str, float]]], key: str) -> float:
    """Return ours to diffusers', compared within each round: machines get slower and faster."""
    pairs = zip(runs["ours"], runs["diffusers"], strict=True)
    return statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)


def size_of(options: argparse.Namespace) -> Size:
    size = SIZES[options.device]
    return size if options.frames is None else replace(size, frames=options.frames)


def run_in_subprocess(side: str, device: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if side == "ours" and device == "cpu":
        environment |= heap_environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_side(options: argparse.Namespace) -> dict[str, float]:
    import torch

    size = size_of(options)
    torch.manual_seed(0)
    build, policy = (
        (build_ours, options.ours) if options.side == "ours" else (build_diffusers, options.peer)
    )
    step, parameters, baseline = build(size, options.device, policy)
    for _ in range(2):
        step()
    if options.device == "cuda":
        torch.cuda.synchronize()
    started, cpu_started = time.perf_counter(), time.process_time()
    for _ in range(options.steps):
        step()
    if options.device == "cuda":
        torch.cuda.synchronize()
    clips = options.steps * size.batch
    return {
        "examples_per_s": clips / (time.perf_counter() - started),
        # On a CPU shared with others, CPU time is what a run can be held to.
        "examples_per_cpu_s": clips / (time.process_time() - cpu_started),
        "peak": peak_memory(options.device) - (baseline if options.device == "cpu" else 0),
        "parameters": parameters,
    }


def peak_memory(device: str) -> float:
    """Bytes: allocated on a GPU; resident, over what imports took, on a CPU."""
    import torch

    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def build_ours(size: Size, device: str, policy: str) -> tuple[Callable[[], None], int, float]:
    import socket

    import torch

    from svd.config.compute import ComputeConfig
    from svd.config.data import StreamConfig
    from svd.config.model import DenoiserConfig, UNetConfig
    from svd.config.training import NoiseConfig, OptimizerConfig, PhaseConfig
    from svd.training.checkpoints.ema import ShardedEma
    from svd.training.loop.engine import Engine, init_ranks
    from svd.training.loop.optim import freeze_others
    from svd.training.objective.loss import denoising_loss
    from svd.training.objective.network import build_network
    from svd.types.batch import Conditioning

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    place = init_ranks(device)
    baseline = peak_memory(device)
    unet = UNetConfig(
        in_channels=8,
        model_channels=size.channels,
        channel_mult=MULT,
        attention_factors=(1, 2, 4),
        head_dim=size.head_dim,
        context_dim=size.context_dim,
        added_cond_dim=3 * ID_DIM,
    )
    network = build_network(
        DenoiserConfig(unet=unet),
        seed=0,
        init=None,
        is_own=False,
        activation_checkpointing=policy,
    ).to(place)
    data = StreamConfig(
        height=8 * size.height, width=8 * size.width, num_frames=size.frames, batch_size=size.batch
    )
    phase = PhaseConfig(
        name="bench",
        num_steps=100,
        data=data,
        micro_batch_size=size.batch,
        lr=1e-4,
        noise=NoiseConfig(p_mean=0.7, p_std=1.6),
        ema_decay=0.9999,
    )
    freeze_others(network, "all", one_token=True)
    engine = Engine(network, phase=phase, optimizer=OptimizerConfig(), compute=ComputeConfig())
    ema = ShardedEma(engine.masters, decay=phase.ema_decay)
    shape = (size.batch, size.frames, 4, size.height, size.width)

    def step() -> None:
        latents, cond = torch.randn(shape, device=place), torch.randn(shape, device=place)
        conditioning = Conditioning(
            context=torch.randn(size.batch, 1, size.context_dim, device=place),
            vector=torch.randn(size.batch, 3 * ID_DIM, device=place),
            cond_latents=cond,
        )
        parts = denoising_loss(
            engine,
            latents=latents,
            noise=torch.randn(shape, device=place),
            sigma=torch.rand(size.batch, device=place) + 0.1,
            conditioning=conditioning,
        )
        engine.backward(parts.loss, is_last=True)
        engine.update(1e-4)
        ema.update()

    return step, sum(p.numel() for p in network.parameters()), baseline


def build_diffusers(size: Size, device: str, policy: str) -> tuple[Callable[[], None], int, float]:
    import torch
    from accelerate import Accelerator
    from diffusers import UNetSpatioTemporalConditionModel
    from diffusers.training_utils import EMAModel

    baseline = peak_memory(device)
    widths = tuple(size.channels * mult for mult in MULT)
    unet = UNetSpatioTemporalConditionModel(
        sample_size=None,
        in_channels=8,
        out_channels=4,
        block_out_channels=widths,
        addition_time_embed_dim=ID_DIM,
        projection_class_embeddings_input_dim=3 * ID_DIM,
        layers_per_block=2,
        cross_attention_dim=size.context_dim,
        transformer_layers_per_block=1,
        num_attention_heads=tuple(width // size.head_dim for width in widths),
        num_frames=size.frames,
    )
    if policy == "checkpointing":
        unet.enable_gradient_checkpointing()
    accelerator = Accelerator(cpu=device == "cpu")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    unet.train()
    ema = EMAModel(unet.parameters(), decay=0.9999)
    shape = (size.batch, size.frames, 4, size.height, size.width)
    place = accelerator.device

    def step() -> None:
        latents, cond = torch.randn(shape, device=place), torch.randn(shape, device=place)
        noise = torch.randn(shape, device=place)
        sigma = (torch.rand(size.batch, device=place) + 0.1)[:, None, None, None, None]
        noisy = latents + sigma * noise
        inputs = torch.cat([noisy / (sigma**2 + 1).sqrt(), cond], dim=2)
        output = unet(
            inputs,
            0.25 * sigma.flatten().log(),
            encoder_hidden_states=torch.randn(size.batch, 1, size.context_dim, device=place),
            added_time_ids=torch.rand(size.batch, 3, device=place),
        ).sample
        c_out, c_skip = -sigma / (sigma**2 + 1).sqrt(), 1 / (sigma**2 + 1)
        denoised = c_out * output + c_skip * noisy
        weight = (1 + sigma**2) / sigma**2
        loss = (weight * (denoised - latents) ** 2).mean()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())

    return step, sum(p.numel() for p in unet.parameters()), baseline


if __name__ == "__main__":
    main()
