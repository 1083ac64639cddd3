"""Adapters in the files that peft and diffusers read and write.

Tensors are called unet.<module of diffusers' UNet>.lora_A.weight and .lora_B.weight; the metadata
holds rank, alpha and modules under the key that diffusers gives them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from svd.config.model import UNetConfig
from svd.errors import CheckpointError
from svd.models.adapters.lora import Adapter, Factors, projections
from svd.models.checkpoints.key_maps import inverse, unet_to_diffusers
from svd.models.checkpoints.weights import check_finite, open_weights, save_state
from svd.models.networks.unet import SpatioTemporalUNet

_METADATA: Final = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY
_PREFIX: Final = "unet."
_PREFIXES: Final = (_PREFIX, "base_model.model.")  # of diffusers' pipelines, and of peft's models
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_WEIGHT: Final = ".weight"


def save_adapter(path: Path, adapter: Adapter, config: UNetConfig) -> None:
    """Write an adapter, atomically; the same adapter gives the same bytes.

    Args:
        path: A safetensors file.
        adapter: What to write.
        config: Of the UNet that its names are of.
    """
    names = {place: _foreign(place, config) for place in sorted(adapter.factors)}
    state: dict[str, Tensor] = {}
    for place, name in names.items():
        state[f"{_PREFIX}{name}{_DOWN}"] = adapter.factors[place].down
        state[f"{_PREFIX}{name}{_UP}"] = adapter.factors[place].up
    rank = len(next(iter(adapter.factors.values())).down)
    told = {"r": rank, "lora_alpha": adapter.alpha, "target_modules": sorted(names.values())}
    metadata = {f"{_PREFIX}{key}": value for key, value in told.items()}
    save_state(state, path, metadata={_METADATA: json.dumps(metadata, sort_keys=True)})


def load_adapter(path: Path, unet: SpatioTemporalUNet) -> Adapter:
    """Read an adapter of a UNet's attention; whether it fits is `add_adapter`'s to say.

    Raises:
        CheckpointError: The file is no LoRA of attention projections, or a value is not finite.
        MissingInputError: There is no such file.
    """
    places = inverse(projections(unet), lambda place: _foreign(place, unet.config))
    with open_weights(path) as weights:
        tensors = {name: check_finite(tensor, name, path) for name, tensor in weights}
        alpha = _alpha(weights.metadata, path)
    downs = {name.removesuffix(_DOWN): t for name, t in tensors.items() if name.endswith(_DOWN)}
    ups = {name.removesuffix(_UP): t for name, t in tensors.items() if name.endswith(_UP)}
    if not downs or downs.keys() != ups.keys() or len(downs) + len(ups) < len(tensors):
        raise CheckpointError(
            f"{path} is not an adapter in the format of peft: it must hold a *{_DOWN} and a "
            f"*{_UP} for each module and nothing else"
        )
    factors = {
        _place(module, places, path): Factors(down, ups[module]) for module, down in downs.items()
    }
    rank = len(next(iter(factors.values())).down)
    return Adapter(alpha=rank if alpha is None else alpha, factors=factors)


def _foreign(place: str, config: UNetConfig) -> str:
    name = unet_to_diffusers(place + _WEIGHT, num_res_blocks=config.num_res_blocks)
    return name.removesuffix(_WEIGHT)


def _place(module: str, places: Mapping[str, str], path: Path) -> str:
    """Return our name of a module; an unknown one keeps its own, which no UNet has."""
    prefix = next((p for p in _PREFIXES if module.startswith(p)), "")
    foreign = module.removeprefix(prefix)
    if foreign not in places and "attn" not in foreign:
        raise CheckpointError(f"{path}: {module} is no attention projection; only those adapt")
    return places.get(foreign, foreign)


def _alpha(metadata: Mapping[str, str], path: Path) -> float | None:
    text = metadata.get(_METADATA)
    if text is None:
        return None
    try:
        return float(json.loads(text)[f"{_PREFIX}lora_alpha"])
    except (ValueError, KeyError, TypeError) as err:
        raise CheckpointError(f"{path}: metadata {_METADATA} does not name lora_alpha") from err
