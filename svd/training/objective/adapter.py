"""Training of an adapter alone: what stands in the network's place in a job of stage lora."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from svd.config.lora import LoraConfig
from svd.models.adapters.lora import Adapter, Factors, add_adapter, new_adapter
from svd.models.adapters.lora_file import load_adapter
from svd.models.networks.unet import SpatioTemporalUNet
from svd.runtime.seed import torch_generator

_NAME: Final = "trained"  # what the network calls the adapter
_DRAW: Final = 0x10A  # part of the key of its initial values
_DOWN, _UP = f".adapters.{_NAME}.lora_A.weight", f".adapters.{_NAME}.lora_B.weight"


def attach_adapter(
    unet: SpatioTemporalUNet, config: LoraConfig, *, seed: int, before: Path | None
) -> None:
    """Put an adapter beside a UNet's projections, to be trained.

    Args:
        unet: With the weights that the adapter is for.
        config: Its width and place.
        seed: Of its initial values.
        before: File of the adapter that an earlier phase left; None for a new one.

    Raises:
        CheckpointError: The earlier adapter does not fit.
    """
    if before is None:
        adapter, origin = new_adapter(unet, config, torch_generator(seed, _DRAW)), "new adapter"
    else:
        adapter, origin = load_adapter(before, unet), str(before)
    add_adapter(unet, _NAME, adapter, origin=origin)


def collect_adapter(trained: Mapping[str, Tensor], config: LoraConfig) -> Adapter:
    """Return the adapter that a UNet's trained parameters are, by their names in it."""
    downs = {
        name.removesuffix(_DOWN): tensor for name, tensor in trained.items() if name.endswith(_DOWN)
    }
    factors = {place: Factors(down, trained[f"{place}{_UP}"]) for place, down in downs.items()}
    return Adapter(alpha=config.alpha, factors=factors)
