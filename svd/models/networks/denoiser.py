"""The denoiser: a UNet inside its preconditioning, called with noisy latents and sigma."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.model import DenoiserConfig
from svd.errors import ConfigError
from svd.models.networks.precond import Scalings, build_preconditioner
from svd.models.networks.unet import SpatioTemporalUNet
from svd.types.batch import Conditioning


class Denoiser(nn.Module):
    """Estimates clean latents from noisy ones; its state dict is the UNet's under `unet.`."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = SpatioTemporalUNet(config.unet)
        self._scalings = build_preconditioner(config)

    def scalings(self, sigma: Float[Tensor, " b"]) -> Scalings:
        """Return c_skip, c_out, c_in and c_noise at some noise levels, in fp32 at least."""
        return self._scalings(sigma.to(torch.promote_types(sigma.dtype, torch.float32)))

    def network_output(
        self,
        noisy_latents: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, " b"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "b t c h w"]:
        """Return F(c_in * noisy_latents; c_noise): what the training loss compares.

        Args:
            noisy_latents: Scaled latents plus sigma * noise.
            sigma: One noise level per clip, in standard deviations of the latents.
            conditioning: One entry per clip.

        Raises:
            ConfigError: The conditioning does not fit the latents or the UNet.
        """
        scalings = self.scalings(sigma)
        inputs = _per_clip(scalings.c_in) * noisy_latents
        if conditioning.cond_latents is not None:
            inputs = _concatenate(inputs, conditioning.cond_latents)
        output: Tensor = self.unet(
            inputs,
            scalings.c_noise,
            conditioning.context,
            conditioning.vector,
            conditioning.image_only,
        )
        return output

    def forward(
        self,
        noisy_latents: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, " b"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "b t c h w"]:
        """Return the denoised latents, in fp32 at least."""
        scalings = self.scalings(sigma)
        output = self.network_output(noisy_latents, sigma, conditioning)
        return _per_clip(scalings.c_skip) * noisy_latents + _per_clip(scalings.c_out) * output


def _per_clip(factor: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1 1"]:
    return factor[:, None, None, None, None]


def _concatenate(latents: Tensor, cond_latents: Tensor) -> Tensor:
    ours = (*latents.shape[:2], *latents.shape[3:])
    theirs = (*cond_latents.shape[:2], *cond_latents.shape[3:])
    if ours != theirs:
        raise ConfigError(
            f"cond_latents of shape {tuple(cond_latents.shape)} do not fit latents of shape "
            f"{tuple(latents.shape)}: clips, frames, height and width must agree"
        )
    return torch.cat([latents, cond_latents.to(latents.dtype)], dim=2)
