"""What a stage will need before a rank is started: memory, operations, hours, and what fits."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, get_args

import torch

from svd.config.compute import ComputeConfig
from svd.config.model import CheckpointPolicy
from svd.config.training import PhaseConfig
from svd.training.loop.gpus import Gpu
from svd.training.loop.optim import trained_set
from svd.training.loop.pace import peak_flops
from svd.training.objective.traits import OBJECTIVES, TRAITS, Traits
from svd.training.planning.footprint import (
    DTYPES,
    ClipShape,
    Footprint,
    ParameterCount,
    count_parameters,
    measure_step,
)
from svd.training.planning.memory import RESERVE_SHARE, MemoryPlan, plan_memory
from svd.training.stage.plan import stage_denoiser
from svd.types.stage import TrainingStage

if TYPE_CHECKING:
    from svd.config.params import Params

# Share of the peak that a step reaches, recomputation included: ours; no GPU has measured it yet.
DEFAULT_UTILISATION: Final = 0.3
POLICIES: Final[tuple[CheckpointPolicy, ...]] = get_args(CheckpointPolicy)  # least recomputed first
_FP32_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Machine:
    """What one rank runs on.

    Attributes:
        name: For a person.
        memory_bytes: Of the device.
        flops: Operations per second at best, in the recipe's precision.
        is_gpu: Whether ranks have GPUs.
    """

    name: str
    memory_bytes: int
    flops: float
    is_gpu: bool

    @classmethod
    def of(cls, name: str, gpu: Gpu) -> "Machine":
        """Return the machine that a kind of GPU is."""
        return cls(name, int(gpu.memory_gib * 2**30), gpu.flops, is_gpu=True)


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to spread a phase over the ranks.

    Attributes:
        zero_stage: DeepSpeed's.
        policy: What backward recomputes.
        memory: Of a rank.
        clips_that_fit: The largest micro-batch; 0 if not one clip fits.
    """

    zero_stage: int
    policy: CheckpointPolicy
    memory: MemoryPlan
    clips_that_fit: int


@dataclass(frozen=True, slots=True)
class PhaseForecast:
    """One phase.

    Attributes:
        phase: The recipe's.
        parameters: In all, and trained.
        footprint: Of one clip.
        memory: Of a rank, as the recipe has it.
        fits: Whether the machine has that much.
        step_s: Seconds of an optimizer step.
        sent_bytes: What a rank sends and receives in an optimizer step; not in `step_s`.
        choices: Every ZeRO stage and policy.
        best: The one that recomputes least, then shards least, of those that fit.
    """

    phase: PhaseConfig
    parameters: ParameterCount
    footprint: Footprint
    memory: MemoryPlan
    fits: bool
    step_s: float
    sent_bytes: int
    choices: tuple[Choice, ...]
    best: Choice | None

    @property
    def hours(self) -> float:
        """Of the whole phase."""
        return self.phase.num_steps * self.step_s / 3600


@dataclass(frozen=True, slots=True)
class StageForecast:
    """A stage's phases, and the machine they are foretold for."""

    stage: TrainingStage
    compute: ComputeConfig
    machine: Machine
    utilisation: float
    phases: tuple[PhaseForecast, ...]

    @property
    def device_hours(self) -> float:
        """Hours of all devices together."""
        return self.compute.num_processes * sum(phase.hours for phase in self.phases)


def forecast_stage(
    stage: TrainingStage, params: "Params", machine: Machine, *, utilisation: float
) -> Iterator[PhaseForecast]:
    """Yield the forecast of each phase, which takes seconds at full size.

    Args:
        stage: Which.
        params: The recipe; neither data nor models need be there.
        machine: What each rank has.
        utilisation: Share of the machine's peak that a step reaches, recomputation included.
    """
    autoencoder = params.autoencoder.model
    denoiser = stage_denoiser(
        stage,
        params,
        latent_channels=autoencoder.latent_channels,
        latent_downscale=autoencoder.downsampling,
    )
    config, traits = params.training(stage), TRAITS[OBJECTIVES[stage]]
    compute = config.compute
    frozen = _frozen_bytes(stage, params, traits)
    others: dict[tuple[str, bool], PolicyMemory] = {}
    for phase in config.phases:
        shape = ClipShape(
            num_frames=phase.data.num_frames,
            height=phase.data.height // autoencoder.downsampling,
            width=phase.data.width // autoencoder.downsampling,
            latent_channels=autoencoder.latent_channels,
        )
        trainable = trained_set(config, phase)
        measure = partial(
            measure_step,
            denoiser,
            traits,
            trainable=trainable,
            precision=compute.precision,
            adapter=config.adapter,
        )
        footprint = measure(shape, policy=compute.activation_checkpointing)
        key = (phase.trainable, phase.data.num_frames == 1)
        if key not in others:
            others[key] = PolicyMemory(
                shape,
                {
                    policy: footprint
                    if policy == compute.activation_checkpointing
                    else measure(shape, policy=policy)
                    for policy in POLICIES
                },
            )
        yield _forecast(
            phase,
            count_parameters(denoiser, trainable, traits, adapter=config.adapter),
            footprint,
            others[key].scaled_to(shape),
            compute,
            machine,
            utilisation=utilisation,
            frozen=frozen,
        )


@dataclass(frozen=True, slots=True)
class PolicyMemory:
    """What a clip of one shape takes under each policy.

    Bytes grow with the number of latents, because fused attention keeps no square of it; so one
    shape is measured and others follow.
    """

    shape: ClipShape
    footprints: dict[CheckpointPolicy, Footprint]

    def scaled_to(self, shape: ClipShape) -> dict[CheckpointPolicy, tuple[int, int]]:
        """Return the bytes that are saved, and the most that backward adds, for another shape."""
        ratio = shape.num_latents / self.shape.num_latents
        return {
            policy: (
                round(ratio * found.saved_bytes),
                round(ratio * (found.peak_bytes - found.saved_bytes)),
            )
            for policy, found in self.footprints.items()
        }


def _forecast(
    phase: PhaseConfig,
    count: ParameterCount,
    footprint: Footprint,
    bytes_of: dict[CheckpointPolicy, tuple[int, int]],
    compute: ComputeConfig,
    machine: Machine,
    *,
    utilisation: float,
    frozen: int,
) -> PhaseForecast:
    clips = phase.micro_batch_size

    def memory_of(layout: ComputeConfig, policy: CheckpointPolicy) -> MemoryPlan:
        saved, backward = bytes_of[policy]
        return plan_memory(
            layout,
            count,
            frozen_bytes=frozen,
            num_power_averages=0 if phase.power_ema is None else len(phase.power_ema.stds),
            activation_bytes=clips * saved,
            backward_bytes=clips * backward,
            on_gpu=machine.is_gpu,
        )

    choices = tuple(
        Choice(
            zero_stage=layout.zero_stage,
            policy=policy,
            memory=(memory := memory_of(layout, policy)),
            clips_that_fit=_clips_that_fit(memory, clips, machine),
        )
        for policy in POLICIES
        for layout in _layouts(compute)
    )
    fitting = [c for c in choices if c.memory.total <= machine.memory_bytes]
    memory = memory_of(compute, compute.activation_checkpointing)
    clips_per_rank = phase.data.batch_size // compute.num_processes
    return PhaseForecast(
        phase=phase,
        parameters=count,
        footprint=footprint,
        memory=memory,
        fits=memory.total <= machine.memory_bytes,
        # What is recomputed is computed: it counts in the utilisation, unlike in an MFU.
        step_s=clips_per_rank * footprint.step_flops / (machine.flops * utilisation),
        sent_bytes=_sent_bytes(compute, count),
        choices=choices,
        best=fitting[0] if fitting else None,
    )


def _layouts(compute: ComputeConfig) -> list[ComputeConfig]:
    """Return the recipe's compute under every ZeRO stage that its precision allows."""
    unsharded = compute.precision == "fp32" and not compute.offload_optimizer
    stages = [0, 1, 2, 3] if unsharded else [1, 2, 3]
    return [compute.model_copy(update={"zero_stage": stage}) for stage in stages]


def _clips_that_fit(memory: MemoryPlan, clips: int, machine: Machine) -> int:
    per_clip = (memory.activations + memory.backward) / clips
    left = machine.memory_bytes - memory.total
    return max(0, clips + math.floor(left / (per_clip * (1 + RESERVE_SHARE))))


def _sent_bytes(compute: ComputeConfig, count: ParameterCount) -> int:
    """Return what a ring sends per rank and optimizer step.

    Source: Rajbhandari 2020 (ZeRO), section 7: gradients are reduced, weights gathered once per
    step, under stage 3 once per pass.
    """
    ranks, width = compute.num_processes, 2 if compute.precision == "bf16" else _FP32_BYTES
    passes = {0: 2, 1: 2, 2: 2, 3: 3}[compute.zero_stage]
    return round(passes * width * count.trained * (ranks - 1) / ranks)


def _frozen_bytes(stage: TrainingStage, params: "Params", traits: Traits) -> int:
    """Return the bytes of networks that condition, which ranks hold in fp32."""
    modules: list[torch.nn.Module] = []
    text = params.training(stage).text_encoder
    with torch.device("meta"):
        if traits.encodes_pictures:
            from svd.models.networks.autoencoder import Autoencoder

            modules.append(Autoencoder(params.autoencoder.model))
        if traits.context == "captions" and text is not None:
            # open_clip takes seconds to import; stages without text do without it.
            from svd.models.networks.text_encoder import TextEncoder

            modules.append(TextEncoder(text.model_copy(update={"weights": None})))
    return _FP32_BYTES * sum(p.numel() for module in modules for p in module.parameters())


def this_processor(compute: ComputeConfig) -> Machine:
    """Return what a rank of this machine's processor has; its speed is measured."""
    threads = torch.get_num_threads()
    torch.set_num_threads(compute.threads_per_process)
    speed = peak_flops(torch.device("cpu"), DTYPES[compute.precision])
    torch.set_num_threads(threads)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // compute.num_processes
    name = f"{compute.threads_per_process} thread(s) of this processor"
    return Machine(name, memory, speed, is_gpu=False)
