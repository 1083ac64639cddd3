"""Conditioning tensors from plain numbers and latents."""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from svd.errors import ConfigError
from svd.models.networks.layers import sinusoid
from svd.types.orbit import POSE_ANGLES, PoseAngle

ADDED_IDS = ("fps_id", "motion_bucket_id", "cond_aug")  # in the order of the release's embedders


def added_ids(
    fps_id: Float[Tensor, " b"],
    motion_bucket_id: Float[Tensor, " b"],
    cond_aug: Float[Tensor, " b"],
) -> Float[Tensor, "b 3"]:
    """Return the triple in the order the network was trained with.

    Args:
        fps_id: Frames per second minus 1, as SVD was trained.
        motion_bucket_id: 0..255; larger is more motion.
        cond_aug: Standard deviation of the noise on the conditioning frame.
    """
    return torch.stack([fps_id, motion_bucket_id, cond_aug], dim=-1)


def embed_added_time_ids(
    ids: Float[Tensor, "b *t k"], *, width: int = 256
) -> Float[Tensor, "b *t a"]:
    """Return the conditioning vector: each id's sinusoid, in their order.

    Args:
        ids: Raw values per clip (or per clip and frame), e.g. 6, 127, 0.02.
        width: Features per id; `added_id_dim` of the UNet's configuration.

    Source: the release embeds each id with its own 256-d sinusoid and concatenates them.
    """
    return sinusoid(ids, width).flatten(-2)


def add_pose(
    vector: Float[Tensor, "b a"],
    poses: Float[Tensor, "b t 2"],
    *,
    told: Sequence[PoseAngle],
    width: int,
) -> Float[Tensor, "b t p"]:
    """Return the conditioning vector of every frame: that of the clip, then the camera's angles.

    Args:
        vector: Embedded ids of each clip.
        poses: Elevation and azimuth in degrees.
        told: Which of them, in this order.
        width: Features per angle.

    Source: SVD paper, appendix D.6: a sinusoidal embedding of the elevation is concatenated to the
    UNet's vector condition. The unit is ours.
    """
    angles = torch.stack([poses[..., POSE_ANGLES.index(name)] for name in told], dim=-1)
    embedded = embed_added_time_ids(angles, width=width)
    return torch.cat([repeat(vector, "b a -> b t a", t=poses.shape[1]), embedded], dim=-1)


class InterpolationCondition(nn.Module):
    """What the interpolation model is shown: both end frames, a learned filler, and a mask.

    Source: Blattmann 2023 (SVD), Appendix D.5: z = (z_first, m, ..., m, z_last) with m a learned
    embedding of a whole latent frame, and a mask channel that is 1 at the end frames.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.mask_embedding = nn.Parameter(torch.zeros(channels, height, width))

    def forward(
        self,
        first: Float[Tensor, "b c h w"],
        last: Float[Tensor, "b c h w"],
        num_frames: int,
    ) -> Float[Tensor, "b t c1 h w"]:
        """Return cond_latents with the mask as their last channel.

        Args:
            first: Unscaled latents of the first frame, with their noise augmentation.
            last: The same of the last frame.
            num_frames: Frames of the clip, both ends included.

        Raises:
            ConfigError: The latents are not of the size the filler was made for, or there is
                no frame between the ends.
        """
        if first.shape[1:] != self.mask_embedding.shape:
            raise ConfigError(
                f"end frames have latents of shape {tuple(first.shape[1:])}, the mask embedding "
                f"has {tuple(self.mask_embedding.shape)}"
            )
        if num_frames < 3:
            raise ConfigError(f"num_frames={num_frames}: interpolation needs at least 3")
        filler = self.mask_embedding.to(first.dtype).expand(
            first.shape[0], num_frames - 2, *first.shape[1:]
        )
        latents = torch.cat([first[:, None], filler, last[:, None]], dim=1)
        mask = torch.zeros(num_frames, device=first.device, dtype=first.dtype)
        mask[[0, -1]] = 1
        mask_channel = rearrange(mask, "t -> 1 t 1 1 1").expand_as(latents[:, :, :1])
        return torch.cat([latents, mask_channel], dim=2)


def mask_between(
    ends: Float[Tensor, "b 2 c h w"], *, num_frames: int
) -> Float[Tensor, "b t i h w"]:
    """Return what interpolation concatenates: latents of both ends, and the mask as last channel.

    Unknown frames hold zeros, in whose place the network puts its mask embedding.

    Args:
        ends: Latents of the first and the last frame, times the latent scale.
        num_frames: Of the clip, ends included; at least 3.

    Source: SVD paper, appendix D.5: the mask is 1 for conditioning frames.
    """
    known = torch.cat([ends, torch.ones_like(ends[:, :, :1])], dim=2)
    between = torch.zeros_like(known[:, :1]).expand(-1, num_frames - 2, -1, -1, -1)
    return torch.cat([known[:, :1], between, known[:, 1:]], dim=1)
