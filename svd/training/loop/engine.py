"""DeepSpeed: the only module that knows it.

What the rest of training sees is a network to call, `backward`, `update`, and the flat fp32 master
weights of this rank with the fragments of parameters in them. Reading and writing masters and
moments through fragments is what makes checkpoints independent of world size and ZeRO stage.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from svd.config.compute import ComputeConfig
from svd.config.training import OptimizerConfig, PhaseConfig
from svd.errors import ConfigError
from svd.models.networks.layers import use_channels_last
from svd.runtime.heap import keep_freed_memory
from svd.training.checkpoints.partition import Fragment, Partition
from svd.training.loop.optim import build_adamw

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's state that has the shape of the weights
MAX_BUCKET = 200_000_000  # elements reduced or gathered at once; DeepSpeed's buffers have this size


def init_ranks(device: Literal["auto", "cpu", "cuda"] = "auto") -> torch.device:
    """Join the job that torchrun started and return this rank's device.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigError("compute.device=cuda, but torch sees no GPU on this machine")
    if device == "cpu" or not has_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    from deepspeed import ops
    from deepspeed.accelerator import get_accelerator

    # DeepSpeed would compile a C++ shared-memory all-reduce for CPU ranks at this point: minutes on
    # a busy machine, and a crash where there is no compiler. gloo does the same work.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    accelerator = get_accelerator()
    on_cpu = accelerator.device_name() == "cpu"
    if on_cpu:
        keep_freed_memory()
    else:
        accelerator.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", verbose=False)
    return torch.device(accelerator.current_device_name())


class Engine:
    """A network under DeepSpeed for one phase of training."""

    def __init__(
        self,
        module: nn.Module,
        *,
        phase: PhaseConfig,
        optimizer: OptimizerConfig,
        compute: ComputeConfig,
    ) -> None:
        """Hand the module to DeepSpeed; its parameters' `requires_grad` says what is trained.

        Every rank must pass equal weights; `init_ranks` must have been called.
        """
        import deepspeed

        world_size = dist.get_world_size()
        self.accumulation_steps = phase.data.batch_size // (phase.micro_batch_size * world_size)
        self._grad_clip = optimizer.grad_clip
        self._zero_stage = compute.zero_stage
        for parameter in module.parameters():
            # DeepSpeed broadcasts and flattens weights as plain rows of bytes.
            parameter.data = parameter.data.contiguous()
        self._adam = build_adamw(module.parameters(), optimizer)
        num_trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        self._engine, self._zero, _, _ = deepspeed.initialize(
            model=module,
            optimizer=self._adam,
            config=_deepspeed_config(
                phase, optimizer, compute, self.accumulation_steps, num_trained
            ),
        )
        if world_size == 1 and compute.zero_stage == 0:
            self._engine.enable_backward_allreduce = False  # it would copy every gradient twice
        if compute.zero_stage == 0:
            use_channels_last(self._engine.module)  # sharded weights are slices of flat tensors
        self._parameters = {
            name: parameter
            for name, parameter in self._engine.module.named_parameters()
            if parameter.requires_grad
        }
        self._adam_keys = self._find_masters()
        self.masters = [held.detach() for held in self._adam_keys]
        self.partition = self._find_partition()

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return torch.device(self._engine.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations in the step."""
        return torch.bfloat16 if self._engine.bfloat16_enabled() else torch.float32

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's forward, with ZeRO's hooks."""
        return self._engine(*args, **kwargs)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Run the body without gradients and in evaluation mode."""
        self._engine.eval()
        with torch.no_grad():
            yield
        self._engine.train()

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Accumulate the gradient of one micro-batch; `is_last` of the optimizer step."""
        self._engine.backward(loss)
        if not is_last:
            self._engine.step()  # counts the micro-batch; nothing is updated

    def update(self, lr: float) -> float:
        """Clip and apply the accumulated gradient; return its global norm before clipping.

        A norm that is not finite means that nothing was applied.
        """
        for group in self._adam.param_groups:
            group["lr"] = lr
        if self._zero_stage == 0:
            return self._update_unsharded()
        self._engine.step()
        self._forget_gradients()
        return float(self._engine.get_global_grad_norm())

    def _update_unsharded(self) -> float:
        # A step of pictures reaches no temporal layer. AdamW would pass over what has no gradient,
        # and its count of updates would fall behind.
        for parameter in self._parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # Without ZeRO, DeepSpeed would apply a gradient that is not finite.
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters.values()])
        if bool(norm.isfinite()):
            torch.nn.utils.clip_grads_with_norm_(
                self._parameters.values(), self._grad_clip, norm, foreach=True
            )
            self._engine.step()
        return float(norm)

    def _forget_gradients(self) -> None:
        """Clear what ZeRO-3 and offloading keep: a step that reaches less would apply it anew."""
        if self._zero_stage == 3:
            self._zero.grad_partitions_flat_buffer.zero_()
        for held in self._adam_keys:
            if held.grad is not None:
                held.grad.zero_()

    def moments(self) -> dict[str, list[Tensor]]:
        """Return AdamW's running means, parallel to `masters`; zeros before the first step."""
        self._ensure_moments()
        return {key: [self._adam.state[held][key] for held in self._adam_keys] for key in MOMENTS}

    def set_adam_step(self, step: int) -> None:
        """Set how many updates AdamW has made, after its moments were overwritten."""
        self._ensure_moments()
        for held in self._adam_keys:
            self._adam.state[held]["step"].fill_(float(step))

    def _ensure_moments(self) -> None:
        for held in self._adam_keys:
            state = self._adam.state[held]
            if not state:
                # What AdamW(fused=True) makes in its first step.
                state["step"] = torch.zeros((), dtype=torch.float32, device=held.device)
                for key in MOMENTS:
                    state[key] = torch.zeros_like(held, memory_format=torch.preserve_format)

    @torch.no_grad()
    def publish(self, flats: Sequence[Tensor]) -> None:
        """Let the network compute with these weights, given as flat tensors like `masters`."""
        if self._zero_stage == 3:
            self._engine.empty_partition_cache()  # what was gathered before would stay in use
            for fragment in self.partition.fragments:
                shard = self._parameters[fragment.name].ds_tensor
                shard.data[: fragment.numel].copy_(fragment.read(flats))
            return
        if self._zero_stage == 0 and all(a is b for a, b in zip(flats, self.masters, strict=True)):
            return  # the network computes with the masters themselves
        for name, whole in self.partition.gather(flats):
            self._parameters[name].data.copy_(whole)

    @contextmanager
    def weights_from(self, flats: Sequence[Tensor]) -> Iterator[None]:
        """Compute with other weights, e.g. averaged ones, within the body."""
        stores = [
            parameter.ds_tensor.data if self._zero_stage == 3 else parameter.data
            for parameter in self._parameters.values()
        ]
        kept = [store.clone() for store in stores]
        self.publish(flats)
        yield
        if self._zero_stage == 3:
            self._engine.empty_partition_cache()
        with torch.no_grad():
            torch._foreach_copy_(stores, kept)

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers, before the next phase builds its own."""
        self._engine.destroy()

    def _find_masters(self) -> list[Tensor]:
        """Return what AdamW updates: the parameters themselves, or this rank's flat shards."""
        if self._zero_stage == 0:
            return list(self._parameters.values())
        names = {
            3: ("fp32_partitioned_groups_flat",),
            2: ("single_partition_of_fp32_groups",),
            # ZeRO-1 in bf16 with fp32 gradients is DeepSpeed's BF16_Optimizer.
            1: ("single_partition_of_fp32_groups", "fp32_groups_flat_partition"),
        }
        found = [getattr(self._zero, name, None) for name in names[self._zero_stage]]
        return next(list(flats) for flats in found if flats is not None)

    def _find_partition(self) -> Partition:
        find = {0: self._whole, 1: self._linked, 2: self._linked, 3: self._split}
        fragments = [
            fragment
            for index, (name, parameter) in enumerate(self._parameters.items())
            if (fragment := find[self._zero_stage](index, name, parameter)) is not None
        ]
        shapes = {
            name: torch.Size(getattr(parameter, "ds_shape", parameter.shape))
            for name, parameter in self._parameters.items()
        }
        return Partition(
            shapes, tuple(fragments), is_sharded=self._zero_stage > 0, device=self.device
        )

    def _whole(self, index: int, name: str, parameter: nn.Parameter) -> Fragment:
        return Fragment(name, 0, parameter.numel(), flat=index, offset=0)

    def _linked(self, _index: int, name: str, parameter: nn.Parameter) -> Fragment | None:
        """Return ZeRO-1 and 2's share, which may be empty: flat tensors are cut anywhere."""
        mapping: Any = vars(parameter)["_hp_mapping"]
        if mapping is None:
            return None
        held, flat = mapping.lp_fragment_address, mapping.hp_fragment_address
        return Fragment(name, held.start, held.numel, mapping.param_group_index, flat.start)

    def _split(self, _index: int, name: str, parameter: nn.Parameter) -> Fragment | None:
        """Return ZeRO-3's share: each parameter is cut into equal parts, the last one padded."""
        zero_parameter: Any = parameter
        part = zero_parameter.ds_tensor.ds_numel
        start = part * dist.get_rank()
        numel = min(part, zero_parameter.ds_numel - start)
        if numel <= 0:
            return None
        flat, offset, _ = self._zero.grad_position[self._zero.get_param_id(parameter)]
        return Fragment(name, start, numel, flat=flat, offset=offset)


def _deepspeed_config(
    phase: PhaseConfig,
    optimizer: OptimizerConfig,
    compute: ComputeConfig,
    accumulation_steps: int,
    num_trained: int,
) -> dict[str, Any]:
    bucket = min(num_trained, MAX_BUCKET)
    zero: dict[str, Any] = {
        "stage": compute.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "overlap_comm": torch.cuda.is_available(),
        "contiguous_gradients": True,
    }
    if compute.zero_stage == 3:
        # Nothing is kept whole between steps, so that `publish` need only write shards.
        zero |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_prefetch_bucket_size": bucket,
        }
    if compute.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    config: dict[str, Any] = {
        "train_batch_size": phase.data.batch_size,
        "train_micro_batch_size_per_gpu": phase.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        # Without ZeRO we clip ourselves: see Engine._update_unsharded.
        "gradient_clipping": optimizer.grad_clip if compute.zero_stage else 0.0,
        "zero_optimization": zero,
        # torch's fused AdamW runs on flat shards as well as DeepSpeed's own, and needs no compiler.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if compute.precision == "bf16":
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
