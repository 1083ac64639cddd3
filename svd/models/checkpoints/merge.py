"""Adapters added into a model's weights, tensor by tensor, as the model is written anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from svd.config.model import DenoiserConfig
from svd.models.adapters.lora import Adapter, check_widths, projections
from svd.models.adapters.lora_file import load_adapter
from svd.models.checkpoints.checkpoint import Part
from svd.models.checkpoints.tensor_file import LazyTensor
from svd.models.networks.unet import SpatioTemporalUNet


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter and how much of it is merged.

    Attributes:
        path: Its safetensors file.
        scale: 1 is as trained.
    """

    path: Path
    scale: float


def merge_files(unet: Part[DenoiserConfig], files: Sequence[AdapterFile]) -> Part[DenoiserConfig]:
    """Return a UNet with adapters in its weights: bit for bit what `merge_adapters` makes of it.

    Raises:
        CheckpointError: A file is no adapter, or is one of a model of another depth or width.
        MissingInputError: There is no such file.
    """
    with torch.device("meta"):
        network = SpatioTemporalUNet(unet.config.unet)
    loaded = [(load_adapter(file.path, network), file.scale) for file in files]
    for file, (adapter, _) in zip(files, loaded, strict=True):
        check_widths(projections(network), adapter, str(file.path))
    tensors = dict(unet.tensors)
    for place in dict.fromkeys(place for adapter, _ in loaded for place in adapter.factors):
        mine = [(adapter, scale) for adapter, scale in loaded if place in adapter.factors]
        tensors[f"{place}.weight"] = _merged(tensors[f"{place}.weight"], place, mine)
    return Part(unet.config, tensors)


def _merged(base: LazyTensor, place: str, adapters: Sequence[tuple[Adapter, float]]) -> LazyTensor:
    def load() -> Tensor:
        weight = base.load()
        updates = []
        for adapter, scale in adapters:
            down, up = (factor.to(weight) for factor in adapter.factors[place])
            updates.append(scale * (adapter.alpha / len(down)) * (up @ down))
        return weight + torch.stack(updates).sum(dim=0)

    return LazyTensor(base.shape, base.dtype, load)
