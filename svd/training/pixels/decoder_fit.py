"""One step of the temporal decoder's training, and of the discriminator's that it plays against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from svd.config.decoder import DecoderTraining
from svd.data.frames import Frames
from svd.models.critics.discriminator import PatchDiscriminator, new_discriminator
from svd.models.critics.lpips import LPIPS
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.temporal_decoder import (
    TemporalDecoder,
    from_image_decoder,
    is_temporal_decoder_layer,
)
from svd.runtime.seed import torch_generator
from svd.training.pixels.crops import draw_windows, window_starts
from svd.training.pixels.decoder_objective import decoder_loss, discriminator_loss
from svd.training.pixels.learner import Learner
from svd.training.pixels.solo_fit import FitRow, Update

# What a draw decides; the second part of its key, after the seed.
_STEP, _DISCRIMINATOR, _BRANCHES = 33, 34, 35


class DecoderRow(FitRow):
    """One row of the temporal decoder's history."""

    l1: float  # mean absolute error, of pixels in -1..1
    perceptual: float  # LPIPS
    adversarial: float  # minus the discriminator's opinion of decoded clips
    discriminator: float  # hinge loss; 1 is a coin's


@dataclass(frozen=True, slots=True)
class Teachers:
    """Networks that do not learn.

    Attributes:
        autoencoder: Its encoder gives the latents.
        perceptual: LPIPS, where the objective has it.
        latent_scale: Latents times this have a std of about 1.
    """

    autoencoder: Autoencoder
    perceptual: LPIPS | None
    latent_scale: float


class DecoderPupil:
    """A decoder that learns to look over time, and its adversary."""

    losses: ClassVar[tuple[str, ...]] = ("loss", "l1", "perceptual", "adversarial", "discriminator")
    row_type: type[DecoderRow] = DecoderRow

    def __init__(
        self,
        teachers: Teachers,
        frames: Frames,
        lengths: Sequence[int],
        config: DecoderTraining,
        *,
        seed: int,
    ) -> None:
        """Start as the image decoder, which does not look over time.

        Args:
            teachers: The frozen encoder, and LPIPS where the objective has it.
            frames: Training frames (n, 3, H, W), clip after clip.
            lengths: Frames of each clip.
            config: How.
            seed: Of new layers, windows, crops, flips and posterior noise.
        """
        self._teachers = teachers
        self._frames = frames
        self._starts = window_starts(lengths, config.num_frames)
        self._config = config
        self._seed = seed
        self._device = teachers.autoencoder.quant_conv.weight.device
        self._decoder = Learner(self._new_decoder())
        self._opponent = self._new_opponent()

    @property
    def decoder(self) -> TemporalDecoder:
        """The network."""
        return self._decoder.network

    def trained(self) -> Mapping[str, nn.Parameter]:
        """Return the decoder's parameters that learn, by name."""
        return self._decoder.trained

    def update(self, step: int, *, factor: float) -> Update:
        """Make one step of both networks, at this share of the peak rates.

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; raised before the update.
        """
        config = self._config
        generator = torch_generator(self._seed, _STEP, step)
        pixels = self._draw(generator).to(self._device).float() / 127.5 - 1
        decoded = rearrange(
            self.decoder.decode(self._latents(pixels, generator), num_frames=config.num_frames),
            "(b t) c h w -> b t c h w",
            t=config.num_frames,
        )
        adversary, opponent = config.adversary, self._opponent
        plays = adversary is not None and step >= adversary.start_step
        terms = decoder_loss(
            decoded,
            pixels,
            config,
            perceptual=self._teachers.perceptual,
            discriminator=opponent.network if opponent is not None and plays else None,
            last_weight=self.decoder.last_layer.weight,
        )
        grad_norm = self._decoder.step(
            terms.loss, lr=config.lr * factor, grad_clip=config.grad_clip
        )
        told = torch.zeros_like(terms.loss)
        if adversary is not None and opponent is not None and plays:
            told = discriminator_loss(opponent.network, decoded, pixels)
            opponent.step(told, lr=adversary.lr * factor, grad_clip=config.grad_clip)
        return Update(torch.stack([*terms, told]).detach().double().cpu(), grad_norm)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and optimizer state of both networks, by name."""
        tensors = _prefixed("decoder.", self._decoder.tensors())
        if self._opponent is not None:
            tensors |= _prefixed("opponent.", self._opponent.tensors())
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], *, step: int) -> None:  # noqa: ARG002
        """Take back what `tensors` returned; each Adam counts its own steps."""
        self._decoder.restore(_below("decoder.", tensors))
        if self._opponent is not None:
            self._opponent.restore(_below("opponent.", tensors))

    def _new_decoder(self) -> TemporalDecoder:
        generator = torch_generator(self._seed, _BRANCHES)
        decoder = from_image_decoder(self._teachers.autoencoder, generator).to(self._device)
        for name, parameter in decoder.named_parameters():
            is_trained = self._config.trainable == "all" or is_temporal_decoder_layer(name)
            parameter.requires_grad_(is_trained)
        return decoder

    def _new_opponent(self) -> Learner[PatchDiscriminator] | None:
        adversary = self._config.adversary
        if adversary is None:
            return None
        network = new_discriminator(
            channels=adversary.channels,
            num_layers=adversary.num_layers,
            generator=torch_generator(self._seed, _DISCRIMINATOR),
        )
        return Learner(network.to(self._device))

    def _draw(self, generator: torch.Generator) -> UInt8[Tensor, "b t 3 s s"]:
        return draw_windows(
            self._frames,
            self._starts,
            batch_size=self._config.batch_size,
            num_frames=self._config.num_frames,
            crop=self._config.crop,
            grid=self._teachers.autoencoder.config.downsampling,
            generator=generator,
        )

    @torch.no_grad()
    def _latents(
        self, pixels: Float[Tensor, "b t 3 s s"], generator: torch.Generator
    ) -> Float[Tensor, "bt c h w"]:
        """Return latents with noise of one strength per clip, drawn from 0 to the largest."""
        config = self._config
        latents = self._teachers.autoencoder.encode(pixels.flatten(0, 1)).sample(generator)
        strengths = torch.rand(config.batch_size, generator=generator) * config.latent_noise
        per_frame = strengths.repeat_interleave(config.num_frames)[:, None, None, None]
        noise = torch.randn(latents.shape, generator=generator)
        noisy: Tensor = latents + (per_frame / self._teachers.latent_scale * noise).to(
            latents.device
        )
        return noisy


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
