"""When layers go the CPU's ways."""

import torch
from torch import Tensor


def takes_cpu_paths(x: Tensor) -> bool:
    """Return whether layers do what pays on a CPU only.

    Not under torch.compile, which fuses by itself, and not for fake tensors, by which a step on
    another device is foretold.
    """
    return x.device.type == "cpu" and type(x) is Tensor and not torch.compiler.is_compiling()
