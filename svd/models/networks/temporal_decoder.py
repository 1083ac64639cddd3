"""The temporal decoder: Stable Diffusion's decoder with convolutions over time in every block.

It replaces the autoencoder's decoder for clips and removes flicker; the latent space stays.
Modules are named as in the release's code (VideoDecoder, time_mode "conv-only").
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.model import AutoencoderConfig
from svd.errors import ConfigError
from svd.models.networks.autoencoder import Autoencoder, Decoder, ResnetBlock
from svd.models.networks.layers import (
    SpatialConv,
    TemporalConv,
    to_frames,
    to_time,
    use_channels_last,
)
from svd.models.networks.resblock import ResBlock


class VideoResnetBlock(ResnetBlock):
    """A frame-wise block, then a temporal one of which a learned share is let through.

    Unlike in the UNet, sigmoid(mix_factor) is the weight of the TEMPORAL branch, as released.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__(in_channels, out_channels, norm_groups)
        self.time_stack = ResBlock(out_channels, out_channels, None, norm_groups, TemporalConv)
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(
        self, x: Float[Tensor, "bt c h w"], num_frames: int = 1
    ) -> Float[Tensor, "bt o h w"]:
        """Return the block's output for the frames of all clips."""
        time = to_time(super().forward(x), num_frames)
        time = time + self.time_stack.branch(time, None, torch.sigmoid(self.mix_factor))
        return to_frames(time, x.shape[2])


class VideoConv(SpatialConv):
    """The last layer: a convolution in each frame, then one over time."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.time_mix_conv = TemporalConv(out_channels, out_channels)

    def forward(
        self, x: Float[Tensor, "bt c h w"], num_frames: int = 1
    ) -> Float[Tensor, "bt o h w"]:
        """Convolve in space, then over time."""
        x = super().forward(x)
        return to_frames(self.time_mix_conv(to_time(x, num_frames)), x.shape[2])


class TemporalDecoder(Decoder):
    """Latents of clips to pixels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config, res_block=VideoResnetBlock, last_conv=VideoConv)
        self.config = config
        use_channels_last(self)

    @property
    def last_layer(self) -> TemporalConv:
        """The convolution over time that gives the pixels."""
        return cast("VideoConv", self.conv_out).time_mix_conv

    def decode(
        self, latents: Float[Tensor, "bt c h w"], num_frames: int
    ) -> Float[Tensor, "bt p H W"]:
        """Return pixels, about -1..1.

        Args:
            latents: Frames of all clips, clip after clip, NOT multiplied by the latent scale.
            num_frames: Frames per clip; each clip is decoded as a whole.

        Raises:
            ConfigError: The frames are not a whole number of clips.
        """
        if latents.shape[0] % num_frames:
            raise ConfigError(
                f"{latents.shape[0]} frames are not a whole number of clips of {num_frames}"
            )
        result: Tensor = self(latents.contiguous(memory_format=torch.channels_last), num_frames)
        return result


def from_image_decoder(autoencoder: Autoencoder, generator: torch.Generator) -> TemporalDecoder:
    """Return a temporal decoder that at first decodes frames as the image decoder does.

    Its temporal branches end in zeros and its last convolution over time passes frames through.
    The 1x1 convolution that stands before the image decoder, which the temporal one has not, is
    multiplied into the first 3x3 kernel; its bias is missing where that kernel looks beyond the
    rim of the latents, so the outermost pixels differ a little until they are trained.

    Args:
        autoencoder: Whose image decoder.
        generator: Of the temporal branches' first convolutions, drawn as PyTorch draws them.
    """
    decoder = TemporalDecoder(autoencoder.config)
    image = autoencoder.decoder.state_dict()
    before = autoencoder.post_quant_conv
    kernel = image["conv_in.weight"]
    with torch.no_grad():
        for name, tensor in decoder.state_dict().items():
            if name in image:
                tensor.copy_(image[name])
            elif "time_stack.in_layers.2." in name:
                layer = decoder.get_submodule(name.rpartition(".")[0])
                bound = cast("TemporalConv", layer).weight[0].numel() ** -0.5
                tensor.uniform_(-bound, bound, generator=generator)
        conv_in, last = decoder.conv_in, decoder.last_layer
        conv_in.weight.copy_(torch.einsum("omyx,mi->oiyx", kernel, before.weight.flatten(1)))
        if before.bias is not None:
            conv_in.offset().add_(torch.einsum("omyx,m->o", kernel, before.bias))
        nn.init.dirac_(last.weight)
        nn.init.zeros_(last.offset())
    return decoder


def is_temporal_decoder_layer(name: str) -> bool:
    """Tell whether a tensor of TemporalDecoder is one that the image decoder has not."""
    return "time_stack" in name or "time_mix_conv" in name or name.endswith("mix_factor")
