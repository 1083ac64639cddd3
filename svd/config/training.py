"""Training of the denoiser: what each stage trains on, in which phases, and on which machines."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.config.data import StreamConfig
from svd.config.model import CheckpointPolicy, TextEncoderConfig

Precision = Literal["fp32", "bf16"]
# Which parameters a phase may change. "spatial" is the image model: all but the temporal layers
# and their mixing factors.
TrainableSet = Literal["all", "spatial", "temporal", "time-embedding"]


class NoiseConfig(Section):
    """Log-normal distribution of sigma during training (form: Karras 2022, Table 1)."""

    p_mean: float  # mean of ln(sigma)
    p_std: float = Field(gt=0)  # standard deviation of ln(sigma)


class CondAugConfig(Section):
    """Log-normal distribution of the noise on the conditioning frame.

    Source of the defaults: SVD paper, section 4.3; in units of pixels that reach from -1 to 1.
    """

    p_mean: float = -3.0  # mean of ln(cond_aug)
    p_std: float = Field(default=0.5, gt=0)  # standard deviation of ln(cond_aug)


class DropoutConfig(Section):
    """How often a clip trains without its conditioning, for classifier-free guidance.

    One draw per clip decides; the three cases exclude each other. At sampling, guidance drops
    both together, which is why `both` exists beside the two single ones.
    """

    context: float = Field(default=0.0, ge=0, le=1)  # share of clips that lose text or embedding
    cond_latents: float = Field(default=0.0, ge=0, le=1)  # share that lose the conditioning frame
    both: float = Field(default=0.0, ge=0, le=1)  # share that lose both

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        total = self.context + self.cond_latents + self.both
        if total > 1:
            raise ValueError(
                f"dropout.context + dropout.cond_latents + dropout.both = {total:g} exceeds 1"
            )
        return self


class PhaseConfig(Section):
    """A stretch of training with one set-up; starts from the averaged weights of the one before.

    Every phase begins with a fresh optimizer and a fresh average, as the separate runs of the
    paper did.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")  # in logs and folder names
    num_steps: int = Field(gt=0)  # optimizer steps
    data: StreamConfig  # window length, picture size and clips per optimizer step
    micro_batch_size: int = Field(gt=0)  # clips per process and forward pass
    trainable: TrainableSet = "all"
    lr: float = Field(gt=0)  # peak learning rate
    lr_warmup_steps: int = Field(default=0, ge=0)  # optimizer steps of linear rise
    lr_decay: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up, to zero
    noise: NoiseConfig
    dropout: DropoutConfig = DropoutConfig()
    cond_aug: CondAugConfig = CondAugConfig()  # used by image-to-video only
    ema_decay: float = Field(ge=0, lt=1)  # per optimizer step, reached after a ramp-up

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.lr_warmup_steps >= self.num_steps:
            raise ValueError(
                f"lr_warmup_steps={self.lr_warmup_steps} of phase {self.name} must be less than "
                f"num_steps={self.num_steps}"
            )
        return self

    @model_validator(mode="after")
    def _stills_train_spatial_layers(self) -> Self:
        if self.data.num_frames == 1 and self.trainable in {"all", "temporal"}:
            raise ValueError(
                f"trainable={self.trainable} of phase {self.name} cannot be with "
                f"data.num_frames=1: stills leave temporal layers alone; use spatial"
            )
        return self


class OptimizerConfig(Section):
    """AdamW (Loshchilov & Hutter 2019); norms, biases and mix factors are not decayed."""

    beta1: float = Field(default=0.9, ge=0, lt=1)  # decay of the gradient's running mean
    beta2: float = Field(default=0.999, ge=0, lt=1)  # decay of the squared gradient's mean
    eps: float = Field(default=1.0e-8, gt=0)  # added to the root of the squared gradient's mean
    weight_decay: float = Field(default=0.01, ge=0)  # decoupled, times the learning rate
    grad_clip: float = Field(default=1.0, gt=0)  # largest global L2 norm of the gradient


class ComputeConfig(Section):
    """How a stage is spread over processes; changes speed and memory, not what is learned."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto is the GPU where there is one
    num_processes: int = Field(default=1, gt=0)  # ranks in all
    threads_per_process: int = Field(default=1, gt=0)  # CPU threads of each rank
    precision: Precision = "fp32"  # of weights and activations in the step; masters are fp32
    zero_stage: Literal[0, 1, 2, 3] = 0  # DeepSpeed ZeRO: what is sharded over the ranks
    offload_optimizer: bool = False  # keep master weights and moments in CPU memory
    activation_checkpointing: CheckpointPolicy = "none"  # what the backward pass recomputes

    @model_validator(mode="after")
    def _masters_exist(self) -> Self:
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "compute.precision=bf16 needs compute.zero_stage of 1 or more: fp32 master weights "
                "are kept by ZeRO"
            )
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("compute.offload_optimizer=true needs compute.zero_stage of 1 or more")
        return self


class CheckpointConfig(Section):
    """When live state is saved, and how much of it is kept."""

    every_steps: int = Field(gt=0)  # optimizer steps between two checkpoints
    keep_last: int = Field(default=2, ge=2)  # two, so that a damaged one has one before it


class ValidationConfig(Section):
    """Loss on held-out clips with fixed noise at fixed noise levels."""

    every_steps: int = Field(gt=0)  # optimizer steps; the last step of a phase always validates
    num_examples: int = Field(gt=0)  # held-out clips, fewer if there are fewer
    sigmas: tuple[float, ...] = Field(min_length=1)  # noise levels, each > 0

    @model_validator(mode="after")
    def _sigmas_are_positive(self) -> Self:
        if min(self.sigmas) <= 0:
            raise ValueError(f"validation.sigmas has {min(self.sigmas):g}; each must be above 0")
        return self


class TrainingStageConfig(Section):
    """One training stage: pretrain-image, pretrain-video or finetune-i2v."""

    # Stage whose averaged weights this one starts from; "scratch" is random weights.
    init: Literal["scratch", "pretrain-image", "pretrain-video"]
    text_encoder: TextEncoderConfig | None = None  # of captions; None where no text is used
    phases: tuple[PhaseConfig, ...] = Field(min_length=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    checkpoint: CheckpointConfig
    validation: ValidationConfig
    log_every_steps: int = Field(default=10, gt=0)  # optimizer steps per row of history.jsonl

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases have names that are not unique: {', '.join(names)}")
        for phase in self.phases:
            unit = phase.micro_batch_size * self.compute.num_processes
            if phase.data.batch_size % unit:
                raise ValueError(
                    f"data.batch_size={phase.data.batch_size} of phase {phase.name} is not a "
                    f"multiple of micro_batch_size={phase.micro_batch_size} times "
                    f"compute.num_processes={self.compute.num_processes}"
                )
        return self
