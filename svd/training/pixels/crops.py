"""Random crops of neighbouring frames, for the networks that see pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.data.frames import Frames


def window_starts(lengths: Sequence[int], num_frames: int) -> list[int]:
    """Return where windows of neighbouring frames may begin; none crosses from clip to clip.

    Args:
        lengths: Frames of each clip, in the order in which they lie in the array.
        num_frames: Of a window.
    """
    starts: list[int] = []
    first = 0
    for length in lengths:
        starts += range(first, first + length - num_frames + 1)
        first += length
    return starts


def draw_windows(
    frames: Frames,
    starts: Sequence[int],
    *,
    batch_size: int,
    num_frames: int,
    crop: int,
    grid: int,
    generator: torch.Generator,
) -> UInt8[Tensor, "b t 3 s s"]:
    """Draw square crops of neighbouring frames, each mirrored with probability one half.

    Args:
        frames: (n, 3, H, W), clip after clip.
        starts: Where a window may begin.
        batch_size: Windows drawn.
        num_frames: Frames t of each.
        crop: Side s of a crop, pixels.
        grid: A crop's corner lies at multiples of so many pixels.
        generator: Of all draws.
    """
    height, width = frames.shape[2:]

    def draw(high: int) -> list[int]:
        drawn: list[int] = torch.randint(high, (batch_size,), generator=generator).tolist()
        return drawn

    picked, mirrored = draw(len(starts)), draw(2)
    tops, lefts = draw((height - crop) // grid + 1), draw((width - crop) // grid + 1)
    windows = []
    for index, top, left, mirror in zip(picked, tops, lefts, mirrored, strict=True):
        first = starts[index]
        rows = slice(grid * top, grid * top + crop)
        columns = slice(grid * left, grid * left + crop)
        window = torch.from_numpy(frames[first : first + num_frames, :, rows, columns].copy())
        windows.append(window.flip(3) if mirror else window)
    return torch.stack(windows)
