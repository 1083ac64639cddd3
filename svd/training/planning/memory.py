"""Memory of one rank, by what it holds, under DeepSpeed as `svd.training.loop.engine` sets it up.

Sources: Rajbhandari 2020 (ZeRO), section 3, for what each stage shards; the code of DeepSpeed 0.19
for its buffers. A test compares with the tensors of real ranks.
"""

from dataclasses import dataclass
from typing import Final

from svd.config.compute import ComputeConfig
from svd.training.loop.engine import MAX_BUCKET
from svd.training.planning.footprint import ParameterCount

BYTES: Final = {"fp32": 4, "bf16": 2}
_FP32: Final = 4
_MAX_GATHERED: Final = 1_000_000_000  # parameters, DeepSpeed's stage3_max_live_parameters
# The driver's context and libraries, and memory lost between tensors. Ours: no GPU measured it.
RESERVE_BYTES: Final = 2 * 2**30
RESERVE_SHARE: Final = 0.05  # of all else


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of one rank.

    Attributes:
        weights: What forward computes with; under ZeRO-3 this rank's share.
        gradients: Of the last micro-batch, and their sums over micro-batches.
        masters: Weights in fp32, where they are not `weights` themselves.
        moments: AdamW's two running means.
        average: EMA of the masters, and power-function averages where a phase keeps some.
        buffers: In which gradients are reduced and ZeRO-3's weights gathered, at most.
        frozen: Networks of the conditioning.
        activations: What a micro-batch keeps for backward.
        backward: The most that backward needs beside it.
        offloaded: Of the above, what lies in the CPU's memory and is not counted in `total`.
    """

    weights: int
    gradients: int
    masters: int
    moments: int
    average: int
    buffers: int
    frozen: int
    activations: int
    backward: int
    offloaded: int = 0

    @property
    def kinds(self) -> dict[str, int]:
        """Every kind by name, in bytes."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "fp32 master weights": self.masters,
            "AdamW moments": self.moments,
            "averages (EMA)": self.average,
            "DeepSpeed buffers": self.buffers,
            "frozen networks": self.frozen,
            "activations": self.activations,
            "backward, at most": self.backward,
        }

    @property
    def held(self) -> int:
        """On the device, known tensors only."""
        return sum(self.kinds.values()) - self.offloaded

    @property
    def total(self) -> int:
        """What a device must have."""
        return round(self.held * (1 + RESERVE_SHARE)) + RESERVE_BYTES


def plan_memory(
    compute: ComputeConfig,
    count: ParameterCount,
    *,
    frozen_bytes: int,
    activation_bytes: int,
    backward_bytes: int,
    on_gpu: bool,
    num_power_averages: int = 0,
) -> MemoryPlan:
    """Return the memory of one rank.

    Args:
        compute: Processes, precision, ZeRO stage.
        count: Of the network.
        frozen_bytes: Of networks that only condition.
        activation_bytes: Of a micro-batch.
        backward_bytes: Likewise, beside the activations.
        on_gpu: Whether the device is one.
        num_power_averages: Power-function averages that a phase keeps.
    """
    stage, ranks = compute.zero_stage, compute.num_processes
    width = BYTES[compute.precision]
    trained, frozen = count.trained, count.total - count.trained
    share = trained if stage == 0 else -(-trained // ranks)
    weights = width * (frozen + (share if stage == 3 else trained))
    masters = 0 if stage == 0 else _FP32 * share
    moments, average = 2 * _FP32 * share, (1 + num_power_averages) * _FP32 * share
    return MemoryPlan(
        weights=weights,
        gradients=_gradients(stage, width, trained, share),
        masters=masters,
        moments=moments,
        average=average,
        buffers=_buffers(compute, trained, on_gpu=on_gpu),
        frozen=frozen_bytes,
        activations=activation_bytes,
        backward=backward_bytes,
        # The average is kept beside the masters, wherever they lie.
        offloaded=masters + moments + average if compute.offload_optimizer else 0,
    )


def _gradients(stage: int, width: int, trained: int, share: int) -> int:
    """Return the fp32 sums over micro-batches, and the gradients of one as backward made them."""
    if stage == 0:
        return _FP32 * trained
    sums = _FP32 * (trained if stage == 1 else share)
    return sums + (0 if stage == 3 else width * trained)


def _buffers(compute: ComputeConfig, trained: int, *, on_gpu: bool) -> int:
    """Return the bucket that is reduced, its double where that overlaps, and gathered weights."""
    if compute.zero_stage == 0:
        return 0
    buckets = 2 if on_gpu else 1  # engine: overlap_comm
    gathers = compute.zero_stage == 3 and compute.num_processes > 1
    gathered = min(trained, _MAX_GATHERED) if gathers else 0
    return BYTES[compute.precision] * (buckets * min(trained, MAX_BUCKET) + gathered)
