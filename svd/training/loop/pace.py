"""How fast training goes: time per step, waiting, memory, and the share of the peak it reaches."""

import resource
import sys
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from svd.config.lora import LoraConfig
from svd.config.model import DenoiserConfig
from svd.models.networks.denoiser import Denoiser
from svd.training.loop.gpus import GPUS
from svd.training.loop.optim import ParameterSet, freeze_others
from svd.training.objective.adapter import attach_adapter
from svd.training.objective.network import RawNetwork
from svd.training.stage.job import SpeedRow
from svd.types.batch import Conditioning

_MATMUL_SIDE = 1024  # of the product that is timed where no data sheet is known
_MATMUL_ROUNDS = 5


class Shapes(NamedTuple):
    """What the network was called with, in one forward pass."""

    latents: torch.Size
    context: torch.Size
    vector: torch.Size
    cond_latents: torch.Size | None

    @classmethod
    def of(cls, latents: Tensor, conditioning: Conditioning) -> "Shapes":
        """Return the shapes of a call's tensors."""
        cond = conditioning.cond_latents
        return cls(
            latents=latents.shape,
            context=conditioning.context.shape,
            vector=conditioning.vector.shape,
            cond_latents=None if cond is None else cond.shape,
        )


class Work:
    """What steps compute, and what a rank could."""

    def __init__(
        self,
        denoiser: DenoiserConfig,
        trainable: ParameterSet,
        *,
        adapter: LoraConfig | None = None,
        peak: float,
    ) -> None:
        """Take the architecture.

        Args:
            denoiser: The architecture.
            trainable: The parameters that need a gradient.
            adapter: That is trained, if one is.
            peak: FLOP/s that a rank could reach.
        """
        self.peak = peak
        self._denoiser = denoiser
        self._trainable = trainable
        self._adapter = adapter
        self._counted: dict[Shapes, float] = {}

    def flops(self, shapes: Shapes) -> float:
        """Return FLOPs of a call, forward and backward, without any recomputation."""
        if shapes not in self._counted:
            self._counted[shapes] = self._count(shapes)
        return self._counted[shapes]

    def _count(self, shapes: Shapes) -> float:
        """Count on the meta device: no memory, no arithmetic; a product and a sum are two."""
        with torch.device("meta"):
            network = RawNetwork(Denoiser(self._denoiser))
            if self._adapter is not None:
                attach_adapter(network.denoiser.unet, self._adapter, seed=0, before=None)
            freeze_others(network, self._trainable, one_token=shapes.context[1] == 1)
            cond = None if shapes.cond_latents is None else torch.empty(shapes.cond_latents)
            conditioning = Conditioning(
                torch.empty(shapes.context), torch.empty(shapes.vector), cond
            )
            with FlopCounterMode(display=False) as counter:
                sigma = torch.ones(shapes.latents[0])
                network(torch.empty(shapes.latents), sigma, conditioning).sum().backward()
        return float(counter.get_total_flops())


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return FLOP/s that one rank could reach: the data sheet's, else a large product's, timed."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for gpu in GPUS.values():
            if gpu.device_name in name:
                return gpu.flops
    side = _MATMUL_SIDE * (8 if device.type == "cuda" else 1)
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(_MATMUL_ROUNDS):
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return float(2 * side**3 / min(seconds))


@dataclass(slots=True)
class Stopwatch:
    """Time and work since the last row; validation, samples and saving are not in the steps."""

    peak: float  # FLOP/s of all ranks
    steps: int = 0
    busy_s: float = 0.0
    waiting_s: float = 0.0
    saving_s: float = 0.0
    examples: int = 0
    flops: float = 0.0
    _started: float = field(default_factory=time.perf_counter)
    _step_started: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        """Begin a step."""
        self._step_started = time.perf_counter()

    def data_arrived(self) -> None:
        """Note that the batch is there."""
        self.waiting_s += time.perf_counter() - self._step_started

    def stop(self, *, batch_size: int) -> None:
        """End a step over so many clips, all ranks together."""
        self.steps += 1
        self.busy_s += time.perf_counter() - self._step_started
        self.examples += batch_size

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint held training up."""
        self.saving_s += seconds

    def row(
        self,
        step: int,
        *,
        steps_left: int,
        unsaved_steps: int,
        device: torch.device,
        device_s: float,
    ) -> SpeedRow:
        """Return what was measured; the time left counts all that happened between steps too.

        Args:
            step: Optimizer steps made, over all phases.
            steps_left: Of the phase.
            unsaved_steps: Since the newest checkpoint.
            device: Of this rank.
            device_s: What the run has spent so far.
        """
        per_step = (time.perf_counter() - self._started) / self.steps
        return SpeedRow(
            step=step,
            examples_per_s=self.examples / self.busy_s,
            step_s=self.busy_s / self.steps,
            data_wait_share=self.waiting_s / self.busy_s,
            peak_memory_bytes=_peak_memory(device),
            mfu=self.flops / self.busy_s / self.peak,
            checkpoint_wait_s=self.saving_s,
            unsaved_steps=unsaved_steps,
            phase_left_s=per_step * steps_left,
            device_s=device_s,
        )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
