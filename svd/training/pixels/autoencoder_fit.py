"""One step of the autoencoder's training."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from svd.config.autoencoder import AutoencoderTraining
from svd.data.frames import Frames
from svd.errors import TrainingDivergedError
from svd.models.networks.autoencoder import Autoencoder
from svd.runtime.seed import torch_generator
from svd.training.pixels.crops import draw_windows
from svd.training.pixels.muon import Muon
from svd.training.pixels.solo_fit import FitRow, Update

_STEP = 31  # what a draw decides; the second part of its key, after the seed


class AutoencoderRow(FitRow):
    """One row of the autoencoder's history."""

    l1: float  # mean absolute error, of pixels in -1..1
    kl: float  # nats per pixel value


class AutoencoderPupil:
    """An autoencoder that learns to give back crops of frames."""

    losses: ClassVar[tuple[str, ...]] = ("loss", "l1", "kl")
    row_type: type[AutoencoderRow] = AutoencoderRow

    def __init__(
        self, autoencoder: Autoencoder, frames: Frames, config: AutoencoderTraining, *, seed: int
    ) -> None:
        """Take the network as it is.

        Args:
            autoencoder: Trained in place.
            frames: Training frames (n, 3, H, W).
            config: How.
            seed: Of crops, flips and posterior noise.
        """
        self.autoencoder = autoencoder
        self._frames = frames
        self._config = config
        self._seed = seed
        self._optimizer = Muon(autoencoder.named_parameters())

    def trained(self) -> dict[str, nn.Parameter]:
        """Return all parameters, by name."""
        return dict(self.autoencoder.named_parameters())

    def update(self, step: int, *, factor: float) -> Update:
        """Make one optimizer step, at this share of the peak rates.

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; raised before the update.
        """
        config = self._config
        generator = torch_generator(self._seed, _STEP, step)
        crops = draw_windows(
            self._frames,
            range(len(self._frames)),
            batch_size=config.batch_size,
            num_frames=1,
            crop=config.crop,
            grid=self.autoencoder.config.downsampling,
            generator=generator,
        )
        pixels = crops.squeeze(1).float() / 127.5 - 1
        moments = self.autoencoder.encode(pixels)
        decoded = self.autoencoder.decode(moments.sample(generator))
        l1 = functional.l1_loss(decoded, pixels)
        l2 = functional.mse_loss(decoded, pixels)
        kl = moments.kl().mean() / pixels[0].numel()
        loss = l1 + l2 + config.kl_weight * kl
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = float(
            torch.nn.utils.clip_grad_norm_(self.autoencoder.parameters(), config.grad_clip)
        )
        losses = torch.stack([loss, l1, kl]).detach().double()
        if not (math.isfinite(norm) and bool(losses.isfinite().all())):
            raise TrainingDivergedError(
                f"autoencoder: loss {float(losses[0])} and gradient norm {norm} at step {step + 1}"
            )
        self._optimizer.step(lr=config.lr * factor, kernel_lr=config.kernel_lr * factor)
        return Update(losses, norm)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and optimizer state, by name."""
        weights = {f"weight.{name}": value.detach() for name, value in self.trained().items()}
        return weights | self._optimizer.state()

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Take back what `tensors` returned after so many steps."""
        for name, parameter in self.trained().items():
            parameter.copy_(tensors[f"weight.{name}"])
        self._optimizer.restore(tensors, step=step)
