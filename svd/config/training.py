"""Training of the denoiser: what each stage trains on, and in which phases."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.config.compute import ComputeConfig
from svd.config.data import StreamConfig
from svd.config.lora import LoraConfig
from svd.config.model import TextEncoderConfig
from svd.config.sampling import GuidanceConfig, ScheduleConfig, SolverConfig
from svd.types.orbit import POSE_ANGLES, PoseAngle
from svd.types.stage import TRAINING_STAGES

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
    Interpolation adds it to latents of unit variance (appendix D.5, which names no strength).
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


class PowerEmaConfig(Section):
    """Power-function averages beside the one that is handed on; see `svd checkpoint ema`.

    Two widths are enough to make any other afterwards (Karras 2024, section 3.2).
    """

    # Relative standard deviations; 0.05 and 0.10 are those of EDM2. A uniform average has 0.289.
    stds: tuple[Annotated[float, Field(gt=0, lt=0.28)], ...] = Field(
        default=(0.05, 0.10), min_length=1
    )
    snapshot_every_steps: int = Field(gt=0)  # optimizer steps; the last step always has one


class SamplesConfig(Section):
    """Videos of held-out clips sampled while training goes on, with the averaged weights."""

    every_steps: int = Field(gt=0)  # optimizer steps; the last step of a phase always samples
    num_clips: int = Field(default=4, gt=0)  # held-out clips, fewer if there are fewer
    schedule: ScheduleConfig = ScheduleConfig()
    solver: SolverConfig = SolverConfig()
    guidance: GuidanceConfig = GuidanceConfig()


class PhaseConfig(Section):
    """A stretch of training with one set-up: one row of the paper's table of runs.

    Every phase begins with a fresh optimizer and a fresh average, as the separate runs of the
    paper did.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")  # in logs and folder names
    # An earlier phase of this stage whose averaged weights this one starts from. None is the one
    # before, and for the first phase the stage's own `init`.
    init: str | None = None
    keep: bool = False  # publish this phase's weights too, below phases/<name>/
    num_steps: int = Field(gt=0)  # optimizer steps
    data: StreamConfig  # window length, picture size and clips per optimizer step
    micro_batch_size: int = Field(gt=0)  # clips per process and forward pass
    trainable: TrainableSet = "all"
    lr: float = Field(gt=0)  # peak learning rate
    lr_warmup_steps: int = Field(default=0, ge=0)  # optimizer steps of linear rise
    lr_decay: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up, to zero
    noise: NoiseConfig
    dropout: DropoutConfig = DropoutConfig()
    cond_aug: CondAugConfig = CondAugConfig()  # noise on known frames; not for text-to-video
    ema_decay: float = Field(ge=0, lt=1)  # per optimizer step, reached after a ramp-up
    power_ema: PowerEmaConfig | None = None  # None keeps none

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


class CheckpointConfig(Section):
    """When live state is saved, and how much of it is kept."""

    every_steps: int = Field(gt=0)  # optimizer steps between two checkpoints
    keep_last: int = Field(default=2, ge=2)  # two, so that a damaged one has one before it
    # So many of the lowest held-out loss stay for good; saved whenever one of them is found.
    keep_best: int = Field(default=0, ge=0)
    keep_every_steps: int | None = Field(default=None, gt=0)  # those of its multiples stay for good
    # Where they lie: s3://bucket/prefix or a folder that all nodes see; None is the run's folder.
    store: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _every_is_saved(self) -> Self:
        every = self.keep_every_steps
        if every is not None and every % self.every_steps:
            raise ValueError(
                f"checkpoint.keep_every_steps={every} is not a multiple of "
                f"checkpoint.every_steps={self.every_steps}"
            )
        return self


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
    """One training stage."""

    # What the first phase starts from: "scratch" is random weights; the name of a training stage
    # is its averaged weights; a path of a safetensors file, absolute or below the root, is an
    # image model's or a released model's weights.
    init: str = Field(min_length=1)
    text_encoder: TextEncoderConfig | None = None  # of captions; None where no text is used
    # Shape of the learned latents of unknown frames; interpolation only. "per-position" is the
    # paper's (c, h, w), for one picture size; "per-channel" is (c, 1, 1), for any.
    mask_embedding: Literal["per-position", "per-channel"] = "per-position"
    # Camera angles that the model is told per frame; finetune-multiview only. Elevation alone is
    # the paper's (appendix D.6); empty where the camera is not known, as with MVImgNet.
    pose: tuple[PoseAngle, ...] = ()
    # What finetune-multiview@image-prior starts from, in the place and form of `init`.
    image_prior: str | None = Field(default=None, min_length=1)
    phases: tuple[PhaseConfig, ...] = Field(min_length=1)
    # Only this adapter is trained, whatever the phases' `trainable` says; stage lora only.
    adapter: LoraConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    checkpoint: CheckpointConfig
    validation: ValidationConfig
    samples: SamplesConfig | None = None  # None samples none
    log_every_steps: int = Field(default=10, gt=0)  # optimizer steps per row of history.jsonl

    @property
    def init_stage(self) -> str | None:
        """The training stage it starts from; None for random weights and for files."""
        return self.init if self.init in TRAINING_STAGES else None

    @property
    def init_file(self) -> str | None:
        """The file it starts from; None for random weights and for stages."""
        return None if self.init in {"scratch", *TRAINING_STAGES} else self.init

    def phase_before(self, index: int) -> int | None:
        """Return the place of the phase that another starts from; None for the stage's start."""
        named = self.phases[index].init
        if named is not None:
            return [phase.name for phase in self.phases].index(named)
        return index - 1 if index else None

    def phases_to(self, index: int) -> tuple[PhaseConfig, ...]:
        """Return the phases that a phase's weights went through, itself the last."""
        before = self.phase_before(index)
        return (*(() if before is None else self.phases_to(before)), self.phases[index])

    @model_validator(mode="after")
    def _init_is_something(self) -> Self:
        if self.init_file is not None and not self.init_file.endswith(".safetensors"):
            raise ValueError(
                f"init={self.init} is none of scratch, {', '.join(TRAINING_STAGES)}, and no "
                "safetensors file"
            )
        return self

    @model_validator(mode="after")
    def _pose_names_each_angle_once(self) -> Self:
        if self.pose != tuple(angle for angle in POSE_ANGLES if angle in self.pose):
            raise ValueError(
                f"pose={list(self.pose)}: name each angle once, in the order {list(POSE_ANGLES)}"
            )
        return self

    def starting_from(self, init: str) -> "TrainingStageConfig":
        """Return the same training with another start."""
        return TrainingStageConfig.model_validate({**dict(self), "init": init})

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases have names that are not unique: {', '.join(names)}")
        for index, phase in enumerate(self.phases):
            if phase.init is not None and phase.init not in names[:index]:
                before = ", ".join(names[:index]) or "none"
                raise ValueError(
                    f"init={phase.init} of phase {phase.name} is no phase before it; "
                    f"there are: {before}"
                )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        for phase in self.phases:
            unit = phase.micro_batch_size * self.compute.num_processes
            if phase.data.batch_size % unit:
                raise ValueError(
                    f"data.batch_size={phase.data.batch_size} of phase {phase.name} is not a "
                    f"multiple of micro_batch_size={phase.micro_batch_size} times "
                    f"compute.num_processes={self.compute.num_processes}"
                )
        return self
