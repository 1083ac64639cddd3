"""What the networks look like: widths, depths, heads; the tiny laptop model is the same code.

The full values of the released model are the presets at the end of this file; each states its
source. Nothing here knows torch.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section

Preconditioning = Literal["edm-v", "edm", "sd-eps", "sd-v"]
CheckpointPolicy = Literal["none", "outer", "ff+res", "block"]  # least recomputed first


class UNetConfig(Section):
    """The spatio-temporal UNet."""

    in_channels: int = Field(ge=1)  # 4 text-to-video, 8 image-to-video, 9 interpolation
    out_channels: int = Field(default=4, ge=1)  # those of the latents
    model_channels: int = Field(ge=2, multiple_of=2)  # width of the first level
    channel_mult: tuple[int, ...] = Field(min_length=1)  # width of each level over the first's
    num_res_blocks: int = Field(default=2, ge=1)  # per level; the up path has one more
    attention_factors: tuple[int, ...]  # downsampling factors with attention; 1 is full size
    head_dim: int = Field(ge=1)  # channels per attention head
    context_dim: int = Field(ge=1)  # width of one text or image token
    added_cond_dim: int = Field(ge=1)  # width of the conditioning vector, all ids together
    added_id_dim: int = Field(default=256, ge=2, multiple_of=2)  # sinusoid width of one added id
    norm_groups: int = Field(default=32, ge=1)  # groups of every GroupNorm
    merge_logit: float = 0.5  # initial mix factor; sigmoid of it weighs the spatial branch
    # "released" starts temporal attention at random, as the release's code does; "identity"
    # zeroes its last layers, so that a model started from an image model is that image model.
    temporal_init: Literal["released", "identity"] = "released"

    # Shape of what stands at the input where a frame's latents are not known: (channels, height,
    # width) or (channels, 1, 1). None: all are known. The last input channel is then the mask.
    mask_embedding: tuple[int, int, int] | None = None

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Width of each level, from full size down."""
        return tuple(self.model_channels * mult for mult in self.channel_mult)

    @property
    def downsampling(self) -> int:
        """Factor between the latents' size and the innermost level's."""
        return 1 << (len(self.channel_mult) - 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        factors = [2**level for level in range(len(self.channel_mult))]
        for factor in self.attention_factors:
            if factor not in factors:
                raise ValueError(f"attention_factors has {factor}, which is none of {factors}")
        for level, channels in enumerate(self.level_channels):
            if channels % self.norm_groups:
                raise ValueError(
                    f"model_channels*channel_mult[{level}]={channels} is not a multiple of "
                    f"norm_groups={self.norm_groups}"
                )
            attends = factors[level] in self.attention_factors or level == len(factors) - 1
            if attends and channels % self.head_dim:
                raise ValueError(
                    f"model_channels*channel_mult[{level}]={channels} is not a multiple of "
                    f"head_dim={self.head_dim}"
                )
        return self


class AutoencoderConfig(Section):
    """The KL autoencoder and its temporal decoder."""

    pixel_channels: int = Field(default=3, ge=1)
    latent_channels: int = Field(default=4, ge=1)
    base_channels: int = Field(ge=1)  # width at full size
    channel_mult: tuple[int, ...] = Field(min_length=1)  # one per level; each further one halves
    num_res_blocks: int = Field(default=2, ge=1)  # per level; the decoder has one more
    norm_groups: int = Field(default=32, ge=1)  # groups of every GroupNorm
    latent_scale: float = Field(default=0.18215, gt=0)  # 1 / std of the latents; SD 2.1's value

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Width of each level, from full size down."""
        return tuple(self.base_channels * mult for mult in self.channel_mult)

    @property
    def downsampling(self) -> int:
        """Pixels per latent along one side."""
        return 1 << (len(self.channel_mult) - 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for level, channels in enumerate(self.level_channels):
            if channels % self.norm_groups:
                raise ValueError(
                    f"base_channels*channel_mult[{level}]={channels} is not a multiple of "
                    f"norm_groups={self.norm_groups}"
                )
        return self


class TextEncoderConfig(Section):
    """The text encoder: a pretrained open_clip model, or a tiny one drawn from a seed."""

    kind: Literal["open-clip", "tiny"]
    architecture: str = "ViT-H-14"  # open_clip's name; kind "open-clip" only
    weights: str | None = None  # local checkpoint; None: random weights from the seed
    width: int = Field(default=64, ge=1)  # token width; kind "tiny" only
    layers: int = Field(default=2, ge=2)  # blocks, the last is not run; kind "tiny" only
    heads: int = Field(default=2, ge=1)  # attention heads; kind "tiny" only
    context_length: int = Field(default=77, ge=1)  # tokens per caption
    seed: int = Field(default=0, ge=0)  # of random weights

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_heads(self.width, self.heads)
        return self


class ImageEncoderConfig(Section):
    """The image encoder: a pretrained open_clip model, or a tiny one drawn from a seed."""

    kind: Literal["open-clip", "tiny"]
    architecture: str = "ViT-H-14"  # open_clip's name; kind "open-clip" only
    weights: str | None = None  # local checkpoint; None: random weights from the seed
    width: int = Field(default=64, ge=1)  # embedding width; kind "tiny" only
    layers: int = Field(default=2, ge=1)  # transformer blocks; kind "tiny" only
    heads: int = Field(default=2, ge=1)  # attention heads; kind "tiny" only
    image_size: int = Field(default=224, ge=1)  # pixels per side that the encoder sees
    patch_size: int = Field(default=14, ge=1)  # pixels per side of a patch; kind "tiny" only
    seed: int = Field(default=0, ge=0)  # of random weights

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}"
            )
        _check_heads(self.width, self.heads)
        return self


class DenoiserConfig(Section):
    """The UNet and what turns its output into an estimate of the clean latents."""

    unet: UNetConfig
    preconditioning: Preconditioning = "edm-v"  # SVD's; "sd-*" is the image model it starts from
    sigma_data: float = Field(default=0.5, gt=0)  # "edm" only; Karras 2022, Table 1


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}")


def svd_unet_config(*, in_channels: int = 8) -> UNetConfig:
    """Return the released model's UNet: 1,524,623,082 parameters with 8 input channels.

    Source: configs/inference/svd.yaml of Stability-AI/generative-models.
    """
    return UNetConfig(
        in_channels=in_channels,
        model_channels=320,
        channel_mult=(1, 2, 4, 4),
        attention_factors=(1, 2, 4),
        head_dim=64,
        context_dim=1024,
        added_cond_dim=768,
    )


def svd_autoencoder_config() -> AutoencoderConfig:
    """Return the released model's autoencoder, which is Stable Diffusion's f8 KL autoencoder.

    Source: configs/inference/svd.yaml of Stability-AI/generative-models.
    """
    return AutoencoderConfig(base_channels=128, channel_mult=(1, 2, 4, 4))
