"""Latents to frames in chunks that overlap, so that neither memory nor borders show."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Decode = Callable[
    [Tensor], Tensor
]  # latents "b t c h w", unscaled -> pixels "b t 3 H W" in [-1, 1]


class Chunk(NamedTuple):
    """Frames [start, stop) that are decoded together."""

    start: int
    stop: int


def plan_chunks(num_frames: int, *, chunk_size: int, overlap: int) -> tuple[Chunk, ...]:
    """Return chunks of equal length that cover all frames; neighbours share >= overlap frames.

    Args:
        num_frames: Frames of the video.
        chunk_size: Most frames in a chunk.
        overlap: Fewest frames that neighbours share; less than chunk_size.
    """
    if num_frames <= chunk_size:
        return (Chunk(0, num_frames),)
    stride = chunk_size - overlap
    last_start = num_frames - chunk_size
    num_strides = -(-last_start // stride)
    starts = [last_start * i // num_strides for i in range(num_strides + 1)]
    return tuple(Chunk(start, start + chunk_size) for start in starts)


def blend_weights(chunks: tuple[Chunk, ...], num_frames: int) -> Float[Tensor, "n t"]:
    """Return the weight of each chunk in each frame: straight ramps across what is shared.

    The weights of a frame sum to 1. A frame at the rim of a chunk lacks its neighbours there, so
    it counts least.
    """
    weights = torch.zeros(len(chunks), num_frames, dtype=torch.float64)
    for row, chunk in enumerate(chunks):
        place = torch.arange(chunk.start, chunk.stop, dtype=torch.float64)
        ramp = torch.ones_like(place)
        if row > 0:
            shared = chunks[row - 1].stop - chunk.start
            ramp = torch.minimum(ramp, (place - chunk.start + 1) / (shared + 1))
        if row < len(chunks) - 1:
            shared = chunk.stop - chunks[row + 1].start
            ramp = torch.minimum(ramp, (chunk.stop - place) / (shared + 1))
        weights[row, chunk.start : chunk.stop] = ramp
    return (weights / weights.sum(dim=0)).float()


def decode_in_chunks(
    decode: Decode, latents: Float[Tensor, "b t c h w"], *, chunk_size: int, overlap: int
) -> Float[Tensor, "b t 3 H W"]:
    """Decode a video chunk by chunk and blend what neighbours share; pixels come on the CPU.

    A temporal decoder sees no further than its chunk, so the same frame differs between two
    chunks; the release cuts there, which shows as a jump. Blending spreads the jump over the
    shared frames. A decoder of single frames gives the same pixels with any chunks.
    """
    num_frames = latents.shape[1]
    chunks = plan_chunks(num_frames, chunk_size=chunk_size, overlap=overlap)
    if len(chunks) == 1:
        return decode(latents).float().cpu()
    weights = blend_weights(chunks, num_frames)
    pixels: Tensor | None = None
    for chunk, weight in zip(chunks, weights, strict=True):
        part = decode(latents[:, chunk.start : chunk.stop]).float().cpu()
        if pixels is None:
            pixels = part.new_zeros(part.shape[0], num_frames, *part.shape[2:])
        share = weight[chunk.start : chunk.stop, None, None, None]
        pixels[:, chunk.start : chunk.stop] += share * part
    if pixels is None:
        raise ValueError("a video of no frames cannot be decoded")
    return pixels


def to_frames(pixels: Float[Tensor, "b t 3 H W"]) -> UInt8[Tensor, "b t H W 3"]:
    """Return 8-bit frames of pixels in [-1, 1], clipped and rounded."""
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 1, 3, 4, 2).contiguous()


def to_pixels(frames: UInt8[Tensor, "b H W 3"]) -> Float[Tensor, "b 3 H W"]:
    """Return 8-bit frames as the pixels a network sees, in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1
