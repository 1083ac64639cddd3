"""Stage autoencoder: train the KL autoencoder on frames, or import one."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.config.data import PictureSize
from svd.config.fit import FitSchedule
from svd.config.model import AutoencoderConfig
from svd.types.video import Rational


class FramesConfig(Section):
    """Which frames of the kept clips are trained on."""

    size: PictureSize  # pixels; the clips' pictures are scaled to cover it and cropped
    fps: Rational  # frames per second taken of each clip
    max_per_clip: int = Field(ge=1)  # frames taken of one clip, from its start
    max_clips: int = Field(ge=1)  # of each split, by the hash of their id; bounds the disk used
    decode_threads: int = Field(default=2, ge=1)  # clips decoded at once

    @model_validator(mode="after")
    def _fps_is_a_rate(self) -> Self:
        if self.fps <= 0:
            raise ValueError(f"frames.fps={self.fps} must be above 0")
        return self


class AutoencoderTraining(FitSchedule):
    """L1 + L2 + a little KL over random crops; Muon on kernels, Adam on all else.

    Source of the objective: Rombach 2022, section 3.1 and appendix G, without the adversary and
    (at laptop size) without the perceptual term; its KL weight is about 1e-6 per pixel value.
    """

    num_steps: int = Field(ge=0)  # optimizer steps; 0 keeps the initial weights
    kernel_lr: float = Field(default=0.02, gt=0)  # of convolution kernels (Muon; Jordan's default)
    kl_weight: float = Field(ge=0)  # times nats per pixel value
    # A quiet posterior at the start lets pictures pass before noise must be fought.
    initial_logvar: float = Field(default=-5.0, ge=-30, le=20)


class AutoencoderStageConfig(Section):
    """The autoencoder that encode uses and every later stage decodes with."""

    model: AutoencoderConfig
    # Weights to start from: a safetensors file below the root, or an address of the store, with
    # our names, the release's or diffusers'. None: random weights.
    init: str | None = None
    frames: FramesConfig
    training: AutoencoderTraining
    # "measured" is 1 / std of the training frames' latents; "given" is model.latent_scale, which
    # for Stable Diffusion's weights is 0.18215.
    latent_scale: Literal["measured", "given"]
    num_threads: int = Field(default=1, ge=1)  # of one tensor operation; part of the result's bits

    @model_validator(mode="after")
    def _crops_fit(self) -> Self:
        crop, size, factor = self.training.crop, self.frames.size, self.model.downsampling
        if crop > min(size.height, size.width):
            raise ValueError(
                f"training.crop={crop} is larger than frames.size={size.height}x{size.width}"
            )
        for name, side in (
            ("training.crop", crop),
            ("frames.size.height", size.height),
            ("frames.size.width", size.width),
        ):
            if side % factor:
                raise ValueError(f"{name}={side} is not a multiple of {factor}, the downsampling")
        return self
