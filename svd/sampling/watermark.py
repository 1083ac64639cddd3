"""The invisible watermark of the release: 48 bits in the blue-difference channel of each frame.

It is the "dwtDct" method of the package invisible-watermark, whose decoder reads ours and whose
marks ours reads. The package needs a wavelet library for it, yet only the averages of 2 x 2
pixels carry the mark, so a few lines of array arithmetic do the same:

1. Halve the U plane (OpenCV's BGR -> YUV) with the Haar wavelet: a + b + c + d over 2.
2. Cut the result into blocks of 4 x 4; block k carries bit k mod 48.
3. In each block, the largest coefficient but the first is moved to the nearest quarter (bit 0)
   or three quarters (bit 1) of an interval of length 36.

Two departures keep the mark readable and the picture intact; the package's decoder gains from
both. The largest coefficient must stay the largest, or the decoder looks elsewhere: where moving
it down would lose that, it goes up one interval. And values are clipped and rounded on the way
back to bytes, where the package wraps around, and its detail planes come back transposed.
"""

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

MESSAGE = 0xB3EC907BB19E  # of Stability-AI/generative-models
NUM_BITS = 48
_INTERVAL = 36.0  # the package's default scale for U
_BLOCK = 4  # coefficients per side of a block
_MARGIN = 4.0  # above its rivals, in coefficients: rounding to bytes moves one by up to this

Blocks = Float[ndarray, "n 16"]


def message_bits(message: int = MESSAGE) -> Bool[ndarray, " 48"]:
    """Return the bits of a 48-bit message, the most significant first."""
    return np.array([(message >> (NUM_BITS - 1 - i)) & 1 for i in range(NUM_BITS)], dtype=bool)


def num_blocks(height: int, width: int) -> int:
    """Return how many bits a frame of this size carries; fewer than 48 cannot hold the mark."""
    return (height // 8) * (width // 8)


def _averages(plane: UInt8[ndarray, "H W"]) -> Float[ndarray, "h w"]:
    """Return the Haar approximation of the plane, cropped to whole blocks."""
    height, width = (side // 8 * 8 for side in plane.shape)
    quads = rearrange(
        plane[:height, :width].astype(np.float64), "(h i) (w j) -> h w (i j)", i=2, j=2
    )
    result: Float[ndarray, "h w"] = quads.sum(axis=-1) / 2
    return result


def _to_blocks(averages: Float[ndarray, "h w"]) -> Blocks:
    blocks: Blocks = rearrange(averages, "(m i) (n j) -> (m n) (i j)", i=_BLOCK, j=_BLOCK)
    return blocks


def _carriers(blocks: Blocks) -> Int[ndarray, " n"]:
    """Return the index of the coefficient of each block that carries its bit."""
    carriers: Int[ndarray, " n"] = np.argmax(np.abs(blocks[:, 1:]), axis=1) + 1
    return carriers


def _shift(blocks: Blocks, bits: Bool[ndarray, " n"]) -> Blocks:
    """Return what to add to the blocks so that they carry the bits."""
    rows = np.arange(len(blocks))
    carriers = _carriers(blocks)
    values = blocks[rows, carriers]
    targets = (values // _INTERVAL + 0.25 + 0.5 * bits) * _INTERVAL
    rivals = blocks.copy()
    rivals[rows, carriers] = -np.inf
    targets += _INTERVAL * (targets < rivals[:, 1:].max(axis=1) + _MARGIN)
    shift = np.zeros_like(blocks)
    shift[rows, carriers] = targets - values
    return shift


def _embed_in_frame(
    frame: UInt8[ndarray, "H W 3"], message: Bool[ndarray, " 48"]
) -> UInt8[ndarray, "H W 3"]:
    yuv = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV)
    averages = _averages(yuv[..., 1])
    blocks = _to_blocks(averages)
    shift = rearrange(
        _shift(blocks, np.resize(message, len(blocks))),
        "(m n) (i j) -> (m i) (n j)",
        m=averages.shape[0] // _BLOCK,
        i=_BLOCK,
    )
    moved = np.kron(shift / 2, np.ones((2, 2)))  # a + b + c + d over 2 rises by the shift
    height, width = moved.shape
    plane = yuv[:height, :width, 1] + moved
    yuv[:height, :width, 1] = np.clip(np.rint(plane), 0, 255).astype(np.uint8)
    return cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB)


def embed_watermark(
    frames: UInt8[ndarray, "t H W 3"], *, message: int = MESSAGE
) -> UInt8[ndarray, "t H W 3"]:
    """Return the frames with the message in each of them.

    Frames too small for 48 blocks (8 x 8 pixels each) come back as they are.
    """
    if num_blocks(*frames.shape[1:3]) < NUM_BITS:
        return frames
    bits = message_bits(message)
    return np.stack([_embed_in_frame(frame, bits) for frame in frames])


def read_watermark(frames: UInt8[ndarray, "t H W 3"]) -> Bool[ndarray, " 48"]:
    """Return the 48 bits that most blocks of all frames vote for.

    Raises:
        ValueError: The frames are too small to carry 48 bits.
    """
    if num_blocks(*frames.shape[1:3]) < NUM_BITS:
        raise ValueError(f"frames of {frames.shape[2]}x{frames.shape[1]} cannot carry 48 bits")
    votes = np.zeros(NUM_BITS)
    ballots = np.zeros(NUM_BITS)
    for frame in frames:
        blocks = _to_blocks(_averages(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV)[..., 1]))
        values = np.abs(blocks[np.arange(len(blocks)), _carriers(blocks)])
        ones = values % _INTERVAL > _INTERVAL / 2
        index = np.arange(len(blocks)) % NUM_BITS
        np.add.at(votes, index, ones)
        np.add.at(ballots, index, 1)
    return votes / ballots > 127 / 255  # the package's bound


def agreement(frames: UInt8[ndarray, "t H W 3"], *, message: int = MESSAGE) -> float:
    """Return the share of the message's bits that the frames carry; chance is 0.5."""
    return float((read_watermark(frames) == message_bits(message)).mean())


def is_marked(share: float) -> bool:
    """Return whether an agreement is no accident: 40 of 48 bits; by chance 2 in a million."""
    return share >= 40 / NUM_BITS
