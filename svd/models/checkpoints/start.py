"""Starting a UNet from other weights: an earlier stage's, the release's or an image model's."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from svd.errors import CheckpointError
from svd.models.checkpoints.checkpoint import Tensors
from svd.models.checkpoints.convert import read_checkpoint
from svd.models.checkpoints.tensor_file import read_safetensors
from svd.models.checkpoints.weights import check_finite, check_fit
from svd.models.networks.layers import zero
from svd.models.networks.unet import MASK_EMBEDDING, SpatioTemporalUNet, is_temporal

logger = logging.getLogger(__name__)
_FIRST = "input_blocks.0.0.weight"  # every UNet has it, and only a file of ours names it so
_WIDENED = (_FIRST, "label_emb.0.0.weight")  # may gain input columns
_ADDED_IDS = "label_emb."

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class StartReport:
    """What a UNet took from the weights it started from.

    Attributes:
        loaded: Tensors taken as they are.
        widened: Tensors that gained input columns of zeros.
        fresh: Tensors that the source has not; they keep their initial values.
    """

    loaded: tuple[str, ...]
    widened: tuple[str, ...]
    fresh: tuple[str, ...]


def start_unet(unet: SpatioTemporalUNet, source: Path) -> StartReport:
    """Start a UNet from weights that may know less than it.

    Allowed differences: the source has fewer input channels or added ids (new columns are zero),
    no mask embedding, no temporal layers (they keep their initial values, which change nothing if
    the UNet's `temporal_init` is "identity"), or no added ids (their embedding ends in zeros). So
    the UNet begins as the very model that it starts from. All else must fit exactly.

    Args:
        unet: What is to start; all its tensors are in memory.
        source: A UNet's weights.safetensors as training stages write it, or any model that
            `svd convert` reads: Stable Diffusion 2.1 (.safetensors or .ckpt), a released
            svd*.safetensors, a folder of ours or of diffusers. One tensor is in memory at a time.

    Raises:
        CheckpointError: Anything else is missing, extra, mis-shaped or not finite; the source is
            malformed or unsafe.
        MissingInputError: There is no such source.
    """
    own = unet.state_dict()
    tensors = _read_unet(source)
    found = {name: torch.Size(tensor.shape) for name, tensor in tensors.items()}
    fresh = [name for name in own if name not in found and _may_be_fresh(name, found)]
    widened = [name for name in _WIDENED if name in found and _is_narrower(found[name], own[name])]
    expected = {name: tensor.shape for name, tensor in own.items() if name not in fresh}
    check_fit(expected, found | {name: own[name].shape for name in widened}, source)
    with torch.no_grad():
        for name, tensor in tensors.items():
            _copy(check_finite(tensor.load(), name, source), own[name])
        if any(name.startswith(_ADDED_IDS) for name in fresh):
            zero(cast("nn.Sequential", unet.label_emb[0])[-1])
    loaded = tuple(name for name in found if name not in widened)
    report = StartReport(loaded=loaded, widened=tuple(widened), fresh=tuple(fresh))
    logger.info(
        "started from earlier weights",
        extra={"path": source, "loaded": len(loaded), "widened": len(widened), "fresh": len(fresh)},
    )
    return report


def _read_unet(source: Path) -> Tensors:
    """Return a UNet's tensors by our names, unread."""
    if source.suffix == ".safetensors":
        tensors = read_safetensors(source)[0]
        if _FIRST in tensors:
            return tensors
    unet = read_checkpoint(source)[1].unet
    if unet is None:
        raise CheckpointError(f"{source} holds no UNet to start from")
    return unet.tensors


def _copy(tensor: Tensor, target: Tensor) -> None:
    """Fill a tensor; columns that the source has not become zero."""
    if tensor.shape != target.shape:
        target.zero_()
        target = target[:, : tensor.shape[1]]
    target.copy_(tensor)


def _may_be_fresh(name: str, found: Shapes) -> bool:
    if name == MASK_EMBEDDING:
        return True  # it counts where the mask is 0, which the source knows nothing of
    group = is_temporal if is_temporal(name) else _is_added_id
    return group(name) and not any(group(other) for other in found)


def _is_added_id(name: str) -> bool:
    return name.startswith(_ADDED_IDS)


def _is_narrower(found: tuple[int, ...], own: Tensor) -> bool:
    own_shape = tuple(own.shape)
    return (
        len(found) == own.ndim
        and found[:1] + found[2:] == own_shape[:1] + own_shape[2:]
        and found[1] < own_shape[1]
    )
