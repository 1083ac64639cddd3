"""Published weights, read into a network without running any code of theirs."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from svd.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn


def load_published(network: "nn.Module", path: Path, *, prefix: str = "") -> "nn.Module":
    """Fill a network from a state dict, .safetensors or PyTorch's own; return it for inference.

    Args:
        network: Has every tensor of the file, and no other; it may be on the meta device.
        path: The file.
        prefix: Of every name in the file, where training has left one.

    Raises:
        CheckpointError: The file is malformed, names anything but tensors, or does not fit.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        network.load_state_dict(state, assign=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, TypeError) as err:
        reason = next(iter(str(err).strip().splitlines()), type(err).__name__)
        raise CheckpointError(
            f"{path}: not weights of a {type(network).__name__}: {reason}"
        ) from err
    return network.float().eval().requires_grad_(requires_grad=False)
