"""Say how many bytes of tensors a rank holds under each ZeRO stage: `... -m this OUT.json`."""

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from svd.config.compute import ComputeConfig
from svd.config.training import OptimizerConfig
from svd.runtime.attached import die_with_parent
from svd.training.checkpoints.ema import ShardedEma
from svd.training.loop.engine import Engine, init_ranks
from svd.training.loop.optim import freeze_others
from svd.training.objective.loss import denoising_loss
from svd.training.objective.network import build_network
from svd.types.batch import Conditioning
from tests.unit.training.world import DENOISER, stage_config

CASES = [(0, "fp32"), *((stage, kind) for stage in (1, 2, 3) for kind in ("fp32", "bf16"))]


def measure(stage: int, precision: str) -> int:
    """Return the bytes alive between two micro-batches of a step, after one step was made."""
    phase = stage_config(phase={"micro_batch_size": 1}).phases[0]
    network = build_network(
        DENOISER, seed=0, init=None, is_own=False, activation_checkpointing="none"
    )
    freeze_others(network, "all")
    gc.collect()
    compute = ComputeConfig(
        zero_stage=stage, precision=precision, num_processes=dist.get_world_size(), device="cpu"
    )
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    before = live_bytes() - weights
    engine = Engine(network, phase=phase, optimizer=OptimizerConfig(), compute=compute)
    ema = ShardedEma(engine.masters, decay=0.9)
    engine.moments()
    for is_last in (False, True):
        engine.backward(loss(engine), is_last=is_last)
    engine.update(1e-3)
    ema.update()
    engine.backward(loss(engine), is_last=False)
    gc.collect()
    held = live_bytes() - before
    engine.close()
    return held


def loss(engine: Engine) -> torch.Tensor:
    """Run a forward pass of one small clip."""
    latents, unet = torch.ones(1, 2, 4, 4, 4), DENOISER.unet
    conditioning = Conditioning(
        context=torch.ones(1, 3, unet.context_dim), vector=torch.ones(1, unet.added_cond_dim)
    )
    return denoising_loss(
        engine,
        latents=latents,
        noise=latents,
        sigma=torch.ones(1),
        conditioning=conditioning,
    ).loss


def live_bytes() -> int:
    gc.collect()
    found = [
        thing for thing in gc.get_objects() if type(thing) in {torch.Tensor, torch.nn.Parameter}
    ]
    found += [thing.grad for thing in found if thing.is_leaf and thing.grad is not None]
    storages = {thing.untyped_storage()._cdata: thing.untyped_storage().nbytes() for thing in found}
    return sum(storages.values())


def main(out: Path) -> None:
    die_with_parent()
    init_ranks("cpu")
    measured = [measure(stage, precision) for stage, precision in CASES]
    if dist.get_rank() == 0:
        out.write_text(json.dumps(measured))
    dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
