"""Our UNet against diffusers': time, kernels, bytes written, saved activations, in one run.

    python benchmarks/unet.py [--device cpu|cuda] [--rounds N]

Time: forward and forward+backward of image-to-video training, both networks of one size, measured
in turns, each in a process of its own; ratios are of medians, above 1 where ours is faster. On a
CPU a narrow network (69 million parameters) in fp32, its CPU time; on a GPU the full one in bf16,
with 25 sampling steps and the share of the card's peak besides.

On a CPU ours runs as our trainer's processes do, which keep freed memory (svd/runtime/heap.py).
That is a setting of the process and not of the network, so diffusers is also measured with it.

Counts: the full networks on meta tensors in bf16, so they are exact and need no GPU. A kernel is an
operation that PyTorch's eager mode dispatches and that is not a view; bytes written are those of
its outputs. Attention counts as one fused kernel that writes its output and one number per query,
which is what flash attention does. Saved activations are the bytes that are alive after a forward
pass and were not before.

The last line is JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from svd.config.model import CheckpointPolicy, UNetConfig, svd_unet_config
from svd.models.networks.unet import SpatioTemporalUNet, is_temporal, is_unused_with_one_token
from svd.runtime.heap import keep_freed_memory

GIB = 2**30
PEAK_FLOPS = 989e12  # H100 SXM and H200, bf16 dense; NVIDIA's data sheets
NUM_SAMPLING_STEPS = 25
# No storage is allocated to be written by these, or their output is an input's storage.
NO_KERNEL = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "_unsafe_view")
# Structure and depth of the full network. Width is a fifth, heads are half as wide.
NARROW = svd_unet_config().model_copy(update={"model_channels": 64, "head_dim": 32})
NARROW_CLIP = (14, 32, 32)  # frames, and height and width of the latents


@dataclass(frozen=True)
class Side:
    """One network and how it is called: latents, c_noise, context -> output."""

    network: nn.Module
    call: Callable[[Tensor, Tensor, Tensor], Tensor]


def build_ours(config: UNetConfig, policy: CheckpointPolicy = "none") -> Side:
    unet = SpatioTemporalUNet(config)
    unet.set_checkpointing(policy)
    for name, parameter in unet.named_parameters():  # as image-to-video training does
        parameter.requires_grad_(not is_unused_with_one_token(name))

    def call(latents: Tensor, c_noise: Tensor, context: Tensor) -> Tensor:
        vector = latents.new_ones(len(latents), config.added_cond_dim)
        output: Tensor = unet(latents, c_noise, context, vector)
        return output

    return Side(unet, call)


def build_diffusers(config: UNetConfig, *, checkpointing: bool = False) -> Side:
    unet = UNetSpatioTemporalConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.level_channels,
        addition_time_embed_dim=config.added_id_dim,
        projection_class_embeddings_input_dim=config.added_cond_dim,
        layers_per_block=config.num_res_blocks,
        cross_attention_dim=config.context_dim,
        num_attention_heads=tuple(width // config.head_dim for width in config.level_channels),
    )
    if checkpointing:
        unet.enable_gradient_checkpointing()

    def call(latents: Tensor, c_noise: Tensor, context: Tensor) -> Tensor:
        ids = latents.new_ones(len(latents), 3)
        output: Tensor = unet(latents, c_noise, context, ids).sample
        return output

    return Side(unet.train(), call)


def draw_inputs(
    config: UNetConfig, clip: tuple[int, int, int], device: str, dtype: torch.dtype, *, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    frames, height, width = clip
    shape = (batch, frames, config.in_channels, height, width)
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    return (
        torch.randn(shape, **options),
        torch.randn(batch, **options),
        torch.randn(batch, 1, config.context_dim, **options),
    )


# Counting on meta tensors


class _FusedAttention(torch.autograd.Function):
    """Stands for a fused attention kernel: what it saves, and no more."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, log_sum = torch.empty_like(q), q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, log_sum)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("only forward passes are counted")


@dataclass
class Count(TorchDispatchMode):
    """What the operations inside the block launch and write."""

    before: set[int]  # storages that were there before
    kernels: Counter[str] = field(default_factory=Counter)
    bytes_written: int = 0
    storages: dict[int, tuple[StorageWeakRef, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [y for y in _flat(result) if isinstance(y, Tensor)]
        for output in outputs:
            storage = output.untyped_storage()
            if storage._cdata not in self.before:
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        name = func.overloadpacket.__name__
        if name not in NO_KERNEL and not func.is_view:
            self.note(name, sum(y.numel() * y.element_size() for y in outputs))
        return result

    def note(self, name: str, num_bytes: int) -> None:
        """Count one kernel."""
        self.kernels[name] += 1
        self.bytes_written += num_bytes

    def bytes_alive(self) -> int:
        """Return the size of what was made inside the block and is still held."""
        return sum(size for ref, size in self.storages.values() if not ref.expired())


class FuseAttention(TorchFunctionMode):
    """Calls attention as one kernel, which meta tensors would not."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        names = ("query", "key", "value")
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        out = _FusedAttention.apply(*(given[name] for name in names))
        written = out.numel() * out.element_size() + 4 * out.shape[:-1].numel()
        self.count.note("attention", written)
        return out


def _flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]


def count_forward(
    build: Callable[[], Side], clip: tuple[int, int, int], *, with_grad: bool
) -> tuple[Count, int]:
    """Return the counts of one forward pass and the bytes alive after it."""
    with torch.device("meta"):
        side = build()
    side.network.to("meta", torch.bfloat16)  # diffusers makes its mix factors elsewhere
    inputs = draw_inputs(svd_unet_config(), clip, "meta", torch.bfloat16, batch=1)
    given = [tensor.untyped_storage() for tensor in (*side.network.parameters(), *inputs)]
    count = Count(before={storage._cdata for storage in given})
    with torch.set_grad_enabled(with_grad), count, FuseAttention(count):
        output = side.call(*inputs)
    return count, count.bytes_alive() - output.untyped_storage().nbytes()


def measure_counts() -> dict[str, float]:
    full = svd_unet_config()
    small, large = (14, 40, 72), (25, 72, 128)  # latents of 320x576 and 576x1024
    with torch.device("meta"):
        unet = SpatioTemporalUNet(full)
    sizes = {name: p.numel() for name, p in unet.named_parameters()}
    figures: dict[str, float] = {
        "params_i2v": sum(sizes.values()),
        "params_temporal": sum(n for name, n in sizes.items() if is_temporal(name)),
    }
    for suffix, build in (
        ("", lambda: build_ours(full)),
        ("_diffusers", lambda: build_diffusers(full)),
    ):
        count, _ = count_forward(build, small, with_grad=False)
        figures["kernels_14x320x576" + suffix] = count.kernels.total()
        figures["gib_written_14x320x576" + suffix] = count.bytes_written / GIB
        print(f"kernels{suffix}: {dict(count.kernels.most_common(12))}")
    for key, build in (
        ("none", lambda: build_ours(full)),
        ("outer", lambda: build_ours(full, "outer")),
        ("ff_res", lambda: build_ours(full, "ff+res")),
        ("block", lambda: build_ours(full, "block")),
        ("diffusers", lambda: build_diffusers(full)),
        ("diffusers_checkpointing", lambda: build_diffusers(full, checkpointing=True)),
    ):
        for name, clip in (("14x320x576", small), ("25x576x1024", large)):
            _, alive = count_forward(build, clip, with_grad=True)
            figures[f"gib_saved_{name}_{key}"] = alive / GIB
    return figures


# Timing


def time_once(work: Callable[[], object], device: str) -> float:
    """Return seconds: of this process on a CPU, which others share; of the clock on a GPU."""
    if device == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def train_step(side: Side, inputs: tuple[Tensor, ...]) -> None:
    side.network.zero_grad(set_to_none=True)
    side.call(*inputs).float().square().mean().backward()


def forward(side: Side, inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        side.call(*inputs)


def sample(side: Side, inputs: tuple[Tensor, ...]) -> None:
    """Call as often as 25 steps with guidance do: conditional and unconditional in one batch."""
    doubled = tuple(torch.cat([x, x]) for x in inputs)
    for _ in range(NUM_SAMPLING_STEPS):
        forward(side, doubled)


SIDES: dict[str, Callable[[UNetConfig], Side]] = {
    "ours": build_ours,
    "ours_ff_res": partial(build_ours, policy="ff+res"),
    "diffusers": build_diffusers,
    "diffusers_keeping_memory": build_diffusers,
    "diffusers_checkpointing": partial(build_diffusers, checkpointing=True),
}


def time_side(name: str, device: str) -> dict[str, float]:
    """Return seconds of each kind of work of one side, after one of each to warm up."""
    if device == "cpu" and (name.startswith("ours") or name.endswith("keeping_memory")):
        keep_freed_memory()
    config, clip, dtype = setting(device)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # CPU time of waiting threads would count as work
    side = SIDES[name](config)
    side.network.to(device, dtype)
    inputs = draw_inputs(config, clip, device, dtype, batch=1)
    work = {"train_step": train_step}
    if name in ("ours", "diffusers"):
        work["forward"] = forward
        if device == "cuda":
            work["sampling"] = sample
    seconds = {}
    for kind, run in work.items():
        run(side, inputs)
        seconds[f"{kind}_s_{name}"] = time_once(partial(run, side, inputs), device)
    return seconds


def setting(device: str) -> tuple[UNetConfig, tuple[int, int, int], torch.dtype]:
    if device == "cpu":
        return NARROW, NARROW_CLIP, torch.float32
    return svd_unet_config(), (14, 40, 72), torch.bfloat16


def time_in_subprocess(name: str, device: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--device", device, "--side", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_time(device: str, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in SIDES:
            for key, value in time_in_subprocess(name, device).items():
                seconds.setdefault(key, []).append(value)
    figures = {key: statistics.median(values) for key, values in seconds.items()}

    def ratio(kind: str, theirs: str = "diffusers", ours: str = "ours") -> float:
        return figures[f"{kind}_s_{theirs}"] / figures[f"{kind}_s_{ours}"]

    for kind in ("forward", "train_step", "sampling"):
        if f"{kind}_s_ours" in figures:
            figures[f"{kind}_time_ratio_vs_diffusers"] = ratio(kind)
    figures["train_step_time_ratio_both_keeping_memory"] = ratio(
        "train_step", "diffusers_keeping_memory"
    )
    figures["train_step_time_ratio_both_recomputing"] = ratio(
        "train_step", "diffusers_checkpointing", "ours_ff_res"
    )
    if device == "cuda":
        config, clip, _ = setting(device)
        flops = 3 * count_flops(config, clip)
        figures["mfu"] = flops / figures["train_step_s_ours"] / PEAK_FLOPS
        print(f"card: {torch.cuda.get_device_name()}")
    return figures


def count_flops(config: UNetConfig, clip: tuple[int, int, int]) -> float:
    """Return the operations of one forward pass, two per multiply-add."""
    with torch.device("meta"):
        side = build_ours(config)
    inputs = draw_inputs(config, clip, "meta", torch.float32, batch=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        side.call(*inputs)
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(time_side(options.side, options.device)))
        return
    figures = measure_counts()
    figures |= measure_time(options.device, options.rounds)
    for name, value in figures.items():
        print(f"{name:<50} {value:,.3f}".rstrip("0").rstrip("."))
    print(json.dumps({"device": options.device, **figures}))


if __name__ == "__main__":
    main()
