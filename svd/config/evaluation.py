"""How a model is measured (stage evaluate)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.config.sampling import PlacementConfig, SamplingConfig


class VideoDistanceConfig(Section):
    """Frechet and kernel distance between sampled and real videos."""

    # "tiny" is a random network for machines without the weights: its numbers never say FVD.
    extractor: Literal["i3d", "tiny"] = "i3d"
    # Frames the network sees. Shorter videos are spread by repeating frames, which is part of the
    # variant id. 16: StyleGAN-V's and the paper's FVD.
    num_frames: int = Field(default=16, ge=9, le=512)
    resize: Literal["stretch", "crop"] = "stretch"  # to the network's square; stretch: paper
    antialias: bool = False  # when resizing; the paper's I3D does not
    divisor: Literal["n", "n-1"] = "n-1"  # of the covariances; 1-2 percent of the value at N = 48
    num_resamples: int = Field(
        default=200, ge=10
    )  # bootstrap sets per interval; each costs a distance
    size_draws: int = Field(default=20, ge=2)  # random subsets per point of the curve over N


class ControlsConfig(Section):
    """What the video distance says of clips we damaged ourselves: the scale to read it by."""

    num_clips: int = Field(default=8, ge=2)  # real clips that are damaged; their N is printed
    noise_std: float = Field(default=25.5, gt=0)  # of Gaussian noise, in grey levels of 255


class RetrievalConfig(Section):
    """First-frame retrieval: is frame 0 of a sample nearest to its own condition?"""

    short_side: int = Field(default=32, ge=4)  # pixels; both are shrunk to it by area average


class BootstrapConfig(Section):
    """Confidence intervals."""

    num_resamples: int = Field(default=1000, ge=100)
    level: float = Field(default=0.95, gt=0.5, lt=1)


class EvaluateConfig(Section):
    """Stage evaluate: sample videos from held-out first frames and measure them."""

    num_clips: int = Field(ge=4)  # held-out clips at most; fewer are used if there are fewer
    sampling: SamplingConfig  # what is sampled, and the size and frames of the comparison
    video_distance: VideoDistanceConfig = VideoDistanceConfig()
    controls: ControlsConfig = ControlsConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    lpips: Literal["alex", "vgg", "none"] = "alex"  # alex: the version-0.1 default of its authors
    bootstrap: BootstrapConfig = BootstrapConfig()
    video_crf: int = Field(default=18, ge=0, le=51)  # x264 quality of the videos kept to look at
    placement: PlacementConfig = PlacementConfig()  # where and in what precision samples are made
    num_threads: int = Field(default=1, ge=1)  # of one tensor operation; part of the result's bits

    @model_validator(mode="after")
    def _controls_fit(self) -> Self:
        if self.controls.num_clips > self.num_clips:
            raise ValueError(
                f"controls.num_clips={self.controls.num_clips} exceeds num_clips={self.num_clips}"
            )
        return self
