"""Stage finetune-decoder: teach the decoder to look over time, against the frozen encoder."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.autoencoder import FramesConfig
from svd.config.base import Section
from svd.config.fit import FitSchedule


class PerceptualConfig(Section):
    """LPIPS of each decoded frame to the true one."""

    network: Literal["vgg", "alex"] = "vgg"  # vgg: the release's loss
    weight: float = Field(gt=0)  # times LPIPS


class AdversaryConfig(Section):
    """A patch discriminator of 3D convolutions.

    Its loss counts `weight` times the ratio of both losses' gradients at the decoder's last layer
    (Esser 2021, equation 7), so that neither drowns the other.
    """

    weight: float = Field(gt=0)
    start_step: int = Field(ge=0)  # the decoder learns alone before; then both learn
    lr: float = Field(gt=0)
    channels: int = Field(default=64, ge=8, multiple_of=8)  # of its first layer
    num_layers: int = Field(default=3, ge=1)  # that halve the picture


class DecoderTraining(FitSchedule):
    """L1, LPIPS and an adversary over random crops of neighbouring frames; Adam.

    Source of the objective: Blattmann 2023 (Video LDM), section 3.1, for the frozen encoder and
    the discriminator; Esser 2021 for the rest.
    """

    num_frames: int = Field(ge=2)  # neighbouring frames of each clip
    # Largest std of noise on each frame's latents, whose own std is about 1; each clip draws its
    # own. What samples are decoded from is never as clean as what the encoder gives.
    latent_noise: float = Field(default=0.0, ge=0, le=1)
    # "temporal" keeps the image decoder's layers as they are.
    trainable: Literal["temporal", "all"] = "all"
    perceptual: PerceptualConfig | None
    adversary: AdversaryConfig | None


class DecoderStageConfig(Section):
    """The temporal decoder: what it sees and how it learns."""

    frames: FramesConfig
    training: DecoderTraining
    device: Literal["cpu", "cuda"] = "cpu"
    num_threads: int = Field(default=1, ge=1)  # of one tensor operation; part of the result's bits

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        training, frames = self.training, self.frames
        if training.crop > min(frames.size.height, frames.size.width):
            raise ValueError(
                f"training.crop={training.crop} is larger than "
                f"frames.size={frames.size.height}x{frames.size.width}"
            )
        if training.num_frames > frames.max_per_clip:
            raise ValueError(
                f"training.num_frames={training.num_frames} is more than "
                f"frames.max_per_clip={frames.max_per_clip}"
            )
        return self
