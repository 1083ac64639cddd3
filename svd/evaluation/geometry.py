"""Pictures of another size: stretched, or scaled to cover a size and cropped at their centre."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

Pictures = Float[Tensor, "n c H W"]


def stretch(pictures: Pictures, height: int, width: int, *, antialias: bool) -> Pictures:
    """Return pictures resized bilinearly with half-pixel centres, whatever their aspect."""
    return functional.interpolate(
        pictures, size=(height, width), mode="bilinear", align_corners=False, antialias=antialias
    )


def cover(pictures: Pictures, height: int, width: int, *, antialias: bool) -> Pictures:
    """Return the centre of pictures that are scaled, aspect kept, to cover height x width."""
    scale = max(height / pictures.shape[-2], width / pictures.shape[-1])
    target = (
        max(height, round(pictures.shape[-2] * scale)),
        max(width, round(pictures.shape[-1] * scale)),
    )
    if target != tuple(pictures.shape[-2:]):
        pictures = stretch(pictures, *target, antialias=antialias)
    return crop(pictures, height, width)


def crop(pictures: Pictures, height: int, width: int) -> Pictures:
    """Return the centre of pictures that are at least height x width."""
    top = (pictures.shape[-2] - height) // 2
    left = (pictures.shape[-1] - width) // 2
    return pictures[..., top : top + height, left : left + width]


def as_frames(pictures: Pictures) -> UInt8[Tensor, "n c H W"]:
    """Return pictures in 0..255 as 8-bit frames."""
    return pictures.round().clamp(0, 255).to(torch.uint8).contiguous()
