"""How finetunes are measured against what they were derived from (stage evaluate-finetunes)."""

from pydantic import Field

from svd.config.base import Section
from svd.config.evaluation import BootstrapConfig
from svd.config.sampling import PlacementConfig, SamplingConfig


class InterpolationTrialConfig(Section):
    """New frames between known ones, against linear blending of the known ones."""

    num_clips: int = Field(ge=4)  # held-out clips at most
    frame_stride: int = Field(default=1, ge=1)  # stored frames from one frame of five to the next
    sampling: SamplingConfig


class CameraTrialConfig(Section):
    """Samples with each adapter, against samples of the same pictures and seeds without."""

    num_clips: int = Field(ge=4)  # held-out first frames at most
    scale: float = Field(default=1.0, gt=0)  # of each adapter
    sampling: SamplingConfig


class MotionTrialConfig(Section):
    """Samples of the same pictures and seeds in several motion buckets."""

    num_clips: int = Field(ge=4)  # held-out first frames at most
    buckets: tuple[int, ...] = Field(default=(0, 64, 128, 192, 255), min_length=3)  # rising
    sampling: SamplingConfig


class DecoderTrialConfig(Section):
    """Held-out clips through the temporal decoder and the image decoder."""

    num_clips: int = Field(ge=4)  # held-out clips at most
    num_frames: int = Field(ge=2)  # of each
    chunk_size: int = Field(default=14, ge=2)  # frames decoded at once
    overlap: int = Field(default=4, ge=0)  # frames that neighbouring chunks share
    # Std of noise on latents of unit variance, in the place of what a sampler leaves; the trial is
    # made without it too.
    latent_noise: float = Field(default=0.1, gt=0)


class EvaluateFinetunesConfig(Section):
    """Stage evaluate-finetunes."""

    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)  # of samples; all are averaged
    interpolation: InterpolationTrialConfig
    decoder: DecoderTrialConfig
    camera: CameraTrialConfig
    motion: MotionTrialConfig
    bootstrap: BootstrapConfig = BootstrapConfig()
    placement: PlacementConfig = PlacementConfig()
    num_threads: int = Field(default=1, ge=1)  # of one tensor operation; part of the result's bits
