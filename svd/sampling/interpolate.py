"""More frames per second: new frames between each two of a video.

The frames that were there stay as they are, to the pixel; the model makes those between.
"""

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.config.sampling import SamplingConfig
from svd.errors import ConfigError
from svd.runtime.seed import torch_generator
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.condition import condition_on_ends
from svd.sampling.samplers.noise import NoiseSource
from svd.sampling.samplers.sampler import sample_frames
from svd.sampling.samplers.solver import OnStep


@dataclass(frozen=True, slots=True)
class Interpolator:
    """A loaded interpolation model and how it is sampled.

    Attributes:
        components: The model.
        config: How to sample; num_frames counts both known ends.
    """

    components: Components
    config: SamplingConfig

    @property
    def factor(self) -> int:
        """How many times more frames per second come out."""
        return self.config.num_frames - 1

    def num_steps(self, num_frames: int) -> int:
        """Return how often on_step is called for a video of so many frames."""
        num_batches = -(-(num_frames - 1) // self.config.batch_size)
        return num_batches * self.config.schedule.num_steps

    @torch.no_grad()
    def __call__(
        self, frames: UInt8[Tensor, "n H W 3"], *, seed: int, on_step: OnStep
    ) -> UInt8[Tensor, "m H W 3"]:
        """Return factor * (n - 1) + 1 frames, every factor-th of them as given.

        What lies between two frames depends on them, on their place and on the seed.

        Raises:
            ConfigError: The model puts no frames between others, or the size is not the config's.
        """
        self._check(frames)
        size = self.config.batch_size
        video = [
            part
            for start in range(0, len(frames) - 1, size)
            for part in self._fill(frames[start : start + size + 1], start, seed, on_step)
        ]
        return torch.cat([*video, frames[-1:]])

    def _fill(
        self, frames: UInt8[Tensor, "n H W 3"], start: int, seed: int, on_step: OnStep
    ) -> list[UInt8[Tensor, "k H W 3"]]:
        """Return each frame but the last with what comes after it, all pairs in one batch."""
        noise = NoiseSource(
            [torch_generator(seed, start + pair) for pair in range(len(frames) - 1)]
        )
        conditioning = condition_on_ends(
            self.components, frames[:-1], frames[1:], config=self.config, noise=noise
        )
        sampled = sample_frames(
            self.components,
            conditioning,
            conditioning.unconditional(),
            config=self.config,
            noise=noise,
            on_step=on_step,
        )
        return [
            torch.cat([known[None], made[1:-1]])
            for known, made in zip(frames[:-1], sampled, strict=True)
        ]

    def _check(self, frames: UInt8[Tensor, "n H W 3"]) -> None:
        config = self.config
        if self.components.denoiser.config.unet.mask_embedding is None:
            raise ConfigError(
                "this model has no mask embedding, so it puts no frames between others; train one "
                "with svd finetune-interpolation"
            )
        if config.num_frames < 3:
            raise ConfigError(
                f"num_frames={config.num_frames} counts both known ends and what lies between: "
                "it must be 3 or more"
            )
        if len(frames) < 2 or frames.shape[1:3] != (config.height, config.width):
            raise ConfigError(
                f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} pixels; "
                f"interpolation takes 2 or more of {config.width}x{config.height}"
            )
