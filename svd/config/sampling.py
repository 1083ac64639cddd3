"""How a video is sampled: noise schedule, solver, guidance, conditioning, decoding, placement.

Defaults are those of the released image-to-video model (svd.yaml and simple_video_sample.py of
Stability-AI/generative-models) unless a field says otherwise.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section

SolverName = Literal["euler", "heun", "dpmpp-2m", "euler-ancestral", "ddim"]
GuidanceKind = Literal["constant", "linear", "triangular", "trapezoidal"]
Precision = Literal["fp32", "fp16", "bf16"]


class ScheduleConfig(Section):
    """The falling noise levels that a solver visits; 0 is appended to them."""

    kind: Literal["karras", "exponential", "discrete"] = "karras"  # Karras 2022, eq. 5, for SVD
    num_steps: int = Field(default=25, ge=1, le=1000)  # solver steps; release: 25 (14 fr.), 30 (25)
    # karras and exponential
    sigma_min: float = Field(default=0.002, gt=0)  # std of the scaled latents
    sigma_max: float = Field(default=700.0, gt=0)  # std of the scaled latents
    rho: float = Field(default=7.0, gt=0)  # curvature, karras only
    # discrete: the table of a model trained with SD's scaled-linear betas
    num_train_steps: int = Field(default=1000, ge=2)  # length of the table
    beta_start: float = Field(default=0.00085, gt=0, lt=1)  # Stable Diffusion's v1 and v2 configs
    beta_end: float = Field(default=0.012, gt=0, lt=1)  # likewise
    spacing: Literal["leading", "trailing", "linspace"] = "leading"  # Lin 2023, Table 2
    steps_offset: int = Field(default=1, ge=0)  # added to the indices of "leading"; SD: 1

    @model_validator(mode="after")
    def _ends_are_ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} is not below sigma_max={self.sigma_max}")
        if self.beta_start >= self.beta_end:
            raise ValueError(f"beta_start={self.beta_start} is not below beta_end={self.beta_end}")
        if self.kind == "discrete" and self.num_steps > self.num_train_steps:
            raise ValueError(
                f"num_steps={self.num_steps} exceeds num_train_steps={self.num_train_steps}"
            )
        return self


class SolverConfig(Section):
    """How a step from one noise level to the next is made."""

    name: SolverName = "euler"
    # Share of fresh noise in euler-ancestral and ddim; None is the method's own: 1 and 0.
    eta: float | None = Field(default=None, ge=0, le=1)
    # Churn of Karras 2022, Algorithm 2; euler and heun only. 0 is deterministic, as in the release.
    s_churn: float = Field(default=0.0, ge=0)  # total noise added, in units of steps
    s_tmin: float = Field(default=0.0, ge=0)  # churn only where s_tmin <= sigma <= s_tmax
    s_tmax: float = Field(default=1e9, gt=0)
    s_noise: float = Field(default=1.0, gt=0)  # std of the noise that churn adds


class GuidanceConfig(Section):
    """Classifier-free guidance with one scale per frame: u + w_t (c - u); 1 is no guidance."""

    kind: GuidanceKind = "linear"
    min_scale: float = Field(default=1.0, ge=0)  # first frame (linear), both ends (tri-, trapezoid)
    max_scale: float = Field(default=2.5, ge=0)  # last frame; plateau; the scale of "constant"
    edge: float = Field(default=0.1, gt=0, le=0.5)  # trapezoid: share of the frames in each ramp
    passes: Literal["one-batch", "two-passes"] = "one-batch"  # two-passes: half the activations


class PlacementConfig(Section):
    """Where the components run and in what precision: memory against speed and exactness."""

    device: str = "auto"  # a torch device; "auto" is the GPU if there is one
    precision: Precision = "fp32"  # of the denoiser and the encoders; the solver stays in fp32
    autoencoder_precision: Precision = "fp32"  # the release runs it without autocast
    compile_blocks: bool = False  # torch.compile the UNet's blocks: minutes at the start
    offload: bool = False  # only the component at work is on the device, the others in RAM


class SamplingConfig(Section):
    """Everything that decides what a sample looks like, apart from model, input and seed."""

    num_frames: int = Field(default=14, ge=1, le=1024)  # frames per segment
    height: int = Field(default=576, ge=8)  # pixels
    width: int = Field(default=1024, ge=8)  # pixels
    fps: int = Field(default=7, ge=1, le=256)  # frames per second; the model is told fps - 1
    motion_bucket_id: int = Field(default=127, ge=0, le=511)  # amount of motion; trained on 0..255
    cond_aug: float = Field(default=0.02, ge=0)  # std of noise on the conditioning frame in [-1,1]
    # Degrees that the camera stands above the object; for orbits. In training: -5 to 30.
    elevation_deg: float = Field(default=10.0, ge=-90, le=90)
    schedule: ScheduleConfig = ScheduleConfig()
    solver: SolverConfig = SolverConfig()
    guidance: GuidanceConfig = GuidanceConfig()
    decode_chunk_size: int = Field(default=14, ge=1)  # frames decoded at once
    decode_overlap: int = Field(default=4, ge=0)  # frames shared by neighbouring chunks; see decode
    # "chunks" blends what chunks share, as fast as can be; "whole-clip" gives a temporal decoder's
    # pixels of the whole clip, layer by layer, chunk_size frames at once.
    decode_mode: Literal["chunks", "whole-clip"] = "chunks"
    batch_size: int = Field(default=1, ge=1)  # videos sampled at once; does not change the result

    @model_validator(mode="after")
    def _overlap_leaves_new_frames(self) -> Self:
        if self.decode_overlap >= self.decode_chunk_size:
            raise ValueError(
                f"decode_overlap={self.decode_overlap} leaves no new frame in a chunk of "
                f"decode_chunk_size={self.decode_chunk_size}"
            )
        return self
