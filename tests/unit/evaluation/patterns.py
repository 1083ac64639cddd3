"""Pictures by formula, so that golden numbers need no files."""

import numpy as np
import torch
from torch import Tensor


def pattern(num_frames: int, height: int, width: int, *, phase: int = 0) -> Tensor:
    """Return uint8 frames "t c H W" of drifting waves; golden numbers hang on every digit."""
    f, y, x = np.mgrid[0:num_frames, 0:height, 0:width]
    red = 127 + 120 * np.sin((x + 3 * f + phase) / 17.0)
    green = 127 + 120 * np.cos((y - 2 * f + phase) / 11.0)
    blue = 127 + 60 * np.sin((x + y) / 23.0) + 60 * np.sin(f / 2.0 + phase)
    frames = np.stack([red, green, blue], axis=1).round().astype(np.uint8)
    return torch.from_numpy(frames)
