"""What the temporal decoder lowers: L1, LPIPS, and the opinion of a discriminator."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from svd.config.decoder import DecoderTraining
from svd.models.critics.discriminator import PatchDiscriminator, hinge_loss
from svd.models.critics.lpips import LPIPS

_MAX_RATIO = 1e4  # of the adaptive weight; Esser 2021's code
_EPS = 1e-4  # likewise


class DecoderLoss(NamedTuple):
    """One batch's loss and its parts, scalars."""

    loss: Tensor
    l1: Tensor  # mean absolute error, of pixels in -1..1
    perceptual: Tensor  # mean LPIPS; 0 where it is not part of the objective
    adversarial: Tensor  # minus the discriminator's mean opinion; 0 before it starts


def decoder_loss(
    decoded: Float[Tensor, "b t 3 s s"],
    pixels: Float[Tensor, "b t 3 s s"],
    config: DecoderTraining,
    *,
    perceptual: LPIPS | None,
    discriminator: PatchDiscriminator | None,
    last_weight: Tensor,
) -> DecoderLoss:
    """Return the loss of decoded clips.

    Args:
        decoded: With gradients.
        pixels: What they should be, in -1..1.
        config: Weights of the parts.
        perceptual: LPIPS, if the objective has it.
        discriminator: Whose opinion counts; None before it starts.
        last_weight: Of the decoder's last layer, where gradients are compared.
    """
    l1 = functional.l1_loss(decoded, pixels)
    likeness = adversarial = torch.zeros_like(l1)
    loss = l1
    if perceptual is not None and config.perceptual is not None:
        likeness = perceptual(decoded.flatten(0, 1), pixels.flatten(0, 1)).mean()
        loss = loss + config.perceptual.weight * likeness
    if discriminator is not None and config.adversary is not None:
        adversarial = -discriminator(as_volume(decoded)).mean()
        ratio = adaptive_weight(loss, adversarial, last_weight)
        loss = loss + config.adversary.weight * ratio * adversarial
    return DecoderLoss(loss, l1, likeness, adversarial)


def adaptive_weight(
    reconstruction: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_weight: Tensor
) -> Float[Tensor, ""]:
    """Return the ratio of the norms of both losses' gradients at a weight, at most 10,000.

    Source: Esser 2021 (VQGAN), equation 7.
    """
    (first,) = torch.autograd.grad(reconstruction, last_weight, retain_graph=True)
    (second,) = torch.autograd.grad(adversarial, last_weight, retain_graph=True)
    ratio: Tensor = (first.norm() / (second.norm() + _EPS)).clamp(0, _MAX_RATIO)
    return ratio.detach()


def discriminator_loss(
    discriminator: PatchDiscriminator,
    decoded: Float[Tensor, "b t 3 s s"],
    pixels: Float[Tensor, "b t 3 s s"],
) -> Float[Tensor, ""]:
    """Return what the discriminator lowers on the same clips; nothing flows to the decoder."""
    return hinge_loss(discriminator(as_volume(pixels)), discriminator(as_volume(decoded.detach())))


def as_volume(clips: Float[Tensor, "b t 3 s s"]) -> Float[Tensor, "b 3 t s s"]:
    """Return clips as three-dimensional convolutions take them."""
    return rearrange(clips, "b t c h w -> b c t h w")
