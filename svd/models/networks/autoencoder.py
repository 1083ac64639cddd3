"""The KL autoencoder of Stable Diffusion: pictures to latents and back, frame by frame.

Modules are named as in the release's code. Source: Rombach 2022, Section 3.1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.model import AutoencoderConfig
from svd.errors import ConfigError
from svd.models.networks.layers import SpatialConv, Upsample, use_channels_last
from svd.models.networks.norm_silu import norm_silu

_EPS = 1e-6  # of the spatial GroupNorms, as released
_LOGVAR_RANGE = (-30.0, 20.0)  # of the release's DiagonalGaussianDistribution


class Moments(NamedTuple):
    """A diagonal Gaussian over latents, NOT multiplied by the latent scale."""

    mean: Float[Tensor, "n c h w"]
    logvar: Float[Tensor, "n c h w"]  # clamped to -30..20

    def sample(self, generator: torch.Generator | None) -> Float[Tensor, "n c h w"]:
        """Draw latents; the noise is drawn on the generator's device (None: torch's default)."""
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(
            self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype
        )
        return self.mean + (self.logvar / 2).exp() * noise.to(self.mean.device)

    def kl(self) -> Float[Tensor, " n"]:
        """Return the divergence from the standard normal, in nats per picture."""
        terms = self.mean**2 + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.flatten(1).sum(1)


class ResnetBlock(nn.Module):
    """Norm, SiLU, convolution, twice."""

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups, in_channels, eps=_EPS)
        self.conv1 = SpatialConv(in_channels, out_channels)
        self.norm2 = nn.GroupNorm(norm_groups, out_channels, eps=_EPS)
        self.conv2 = SpatialConv(out_channels, out_channels)
        self.nin_shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h w"]:
        """Return the block's output."""
        hidden = self.conv1(norm_silu(self.norm1, x))
        hidden = self.conv2(norm_silu(self.norm2, hidden))
        result: Tensor = self.nin_shortcut(x) + hidden
        return result


class AttentionBlock(nn.Module):
    """Single-head attention among the positions of each frame."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels, eps=_EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the input plus what attention adds."""
        normed = self.norm(x)
        q, k, v = (
            rearrange(layer(normed), "n c h w -> n 1 (h w) c") for layer in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = x + self.proj_out(rearrange(out, "n 1 (h w) c -> n c h w", h=x.shape[2]))
        return result


class HalvingConv(nn.Module):
    """Halves height and width; pads on the right and below only, as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Pad and convolve with stride 2."""
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class DownLevel(nn.Module):
    """Residual blocks of one size, then the way to half of it."""

    def __init__(self, block: nn.ModuleList, downsample: HalvingConv | None) -> None:
        super().__init__()
        self.block = block
        self.downsample = downsample

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Apply the blocks, and halve except at the innermost level."""
        for block in self.block:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(nn.Module):
    """Residual blocks of one size, then the way to twice of it."""

    def __init__(self, block: nn.ModuleList, upsample: Upsample | None) -> None:
        super().__init__()
        self.block = block
        self.upsample = upsample

    def forward(self, x: Float[Tensor, "n c h w"], *num_frames: int) -> Float[Tensor, "n o h2 w2"]:
        """Apply the blocks, and double except at the outermost level."""
        for block in self.block:
            x = block(x, *num_frames)
        return x if self.upsample is None else self.upsample(x)


class Middle(nn.Module):
    """Block, attention, block at the smallest size."""

    def __init__(self, block_1: nn.Module, attn_1: nn.Module, block_2: nn.Module) -> None:
        super().__init__()
        self.block_1 = block_1
        self.attn_1 = attn_1
        self.block_2 = block_2


class Encoder(nn.Module):
    """Pictures to the moments' channels (before quant_conv)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups = config.level_channels, config.norm_groups
        channels = widths[0]
        self.conv_in = SpatialConv(config.pixel_channels, channels)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            block = nn.ModuleList()
            for _ in range(config.num_res_blocks):
                block.append(ResnetBlock(channels, width, groups))
                channels = width
            halve = HalvingConv(channels) if level < len(widths) - 1 else None
            self.down.append(DownLevel(block, halve))
        self.mid = Middle(
            ResnetBlock(channels, channels, groups),
            AttentionBlock(channels, groups),
            ResnetBlock(channels, channels, groups),
        )
        self.norm_out = nn.GroupNorm(groups, channels, eps=_EPS)
        self.conv_out = SpatialConv(channels, 2 * config.latent_channels)

    def forward(self, pixels: Float[Tensor, "n c H W"]) -> Float[Tensor, "n m h w"]:
        """Return mean and log variance, stacked."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))
        result: Tensor = self.conv_out(norm_silu(self.norm_out, x))
        return result


class Decoder(nn.Module):
    """Latents (after post_quant_conv) to pictures, frame by frame."""

    def __init__(
        self,
        config: AutoencoderConfig,
        *,
        res_block: type[ResnetBlock] = ResnetBlock,
        last_conv: type[SpatialConv] = SpatialConv,
    ) -> None:
        super().__init__()
        widths, groups = config.level_channels, config.norm_groups
        channels = widths[-1]
        self.conv_in = SpatialConv(config.latent_channels, channels)
        self.mid = Middle(
            res_block(channels, channels, groups),
            AttentionBlock(channels, groups),
            res_block(channels, channels, groups),
        )
        levels: list[nn.Module] = []
        for level, width in reversed(list(enumerate(widths))):
            block = nn.ModuleList()
            for _ in range(config.num_res_blocks + 1):
                block.append(res_block(channels, width, groups))
                channels = width
            levels.append(UpLevel(block, Upsample(channels) if level else None))
        self.up = nn.ModuleList(reversed(levels))  # the release counts from full size
        self.norm_out = nn.GroupNorm(groups, channels, eps=_EPS)
        self.conv_out = last_conv(channels, config.pixel_channels)

    def forward(
        self, latents: Float[Tensor, "n c h w"], *num_frames: int
    ) -> Float[Tensor, "n p H W"]:
        """Return pixels.

        Args:
            latents: Frames.
            num_frames: Nothing, or one count that goes to the blocks that look over time.
        """
        x = self.conv_in(latents)
        x = self.mid.block_1(x, *num_frames)
        x = self.mid.block_2(self.mid.attn_1(x), *num_frames)
        for level in reversed(self.up):
            x = level(x, *num_frames)
        result: Tensor = self.conv_out(norm_silu(self.norm_out, x), *num_frames)
        return result


class Autoencoder(nn.Module):
    """Encoder and image decoder with the two 1x1 convolutions around the latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        moments = 2 * config.latent_channels
        self.quant_conv = nn.Conv2d(moments, moments, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        use_channels_last(self)

    def encode(self, pixels: Float[Tensor, "n c H W"]) -> Moments:
        """Return the latents' distribution.

        Args:
            pixels: In -1..1; height and width are multiples of the downsampling factor.

        Raises:
            ConfigError: A side does not divide.
        """
        factor = self.config.downsampling
        if pixels.shape[2] % factor or pixels.shape[3] % factor:
            raise ConfigError(
                f"picture of {pixels.shape[3]}x{pixels.shape[2]} pixels: both sides must be "
                f"multiples of {factor}"
            )
        moments = self.quant_conv(
            self.encoder(pixels.contiguous(memory_format=torch.channels_last))
        )
        mean, logvar = moments.chunk(2, dim=1)
        return Moments(mean, logvar.clamp(*_LOGVAR_RANGE))

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p H W"]:
        """Return pixels, about -1..1, of latents that are NOT multiplied by the latent scale."""
        latents = latents.contiguous(memory_format=torch.channels_last)
        result: Tensor = self.decoder(self.post_quant_conv(latents))
        return result
