"""Weights that an autoencoder starts from: random, or a file in one of the known layouts."""

from pathlib import Path

import torch

from svd.config.model import AutoencoderConfig
from svd.errors import CheckpointError, MissingInputError
from svd.models.autoencoder import Autoencoder
from svd.models.key_maps import autoencoder_to_diffusers, inverse
from svd.models.weights import check_finite, check_fit, open_weights
from svd.runtime.storage import open_store

_PREFIXES = ("first_stage_model.", "")  # Stable Diffusion's checkpoints; our own files


def new_autoencoder(config: AutoencoderConfig, *, seed: int, initial_logvar: float) -> Autoencoder:
    """Return an autoencoder with seeded random weights and a posterior of this log variance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = Autoencoder(config)
    bias = autoencoder.quant_conv.bias
    if bias is None:
        raise CheckpointError("quant_conv has no bias to set the posterior's variance with")
    with torch.no_grad():
        bias[config.latent_channels :] = initial_logvar
    return autoencoder


def fetch_initial(uri: str, *, root: Path, folder: Path) -> Path:
    """Return a local file for `autoencoder.init`.

    Args:
        uri: A path, absolute or below the root, or an address like s3://bucket/key.
        root: The checkout.
        folder: Where a file from a store is put.

    Raises:
        MissingInputError: There is no such file.
        StoreError: The store failed.
    """
    if "://" not in uri:
        path = root / uri
        if not path.is_file():
            raise MissingInputError(f"autoencoder.init={uri}: {path} is not there")
        return path
    place, _, key = uri.rpartition("/")
    path = folder / "init.safetensors"
    if not path.is_file():
        open_store(place).get_file(key, path)
    return path


def load_initial(autoencoder: Autoencoder, path: Path) -> None:
    """Fill an autoencoder from a file with our names, Stable Diffusion's, or diffusers'.

    Raises:
        CheckpointError: The file is of no known layout, or tensors do not fit.
    """
    own = autoencoder.state_dict()
    num_levels = len(autoencoder.config.channel_mult)
    with open_weights(path) as weights:
        prefix = next((p for p in _PREFIXES if any(n.startswith(p) for n in weights.shapes)), "")
        ours = {n.removeprefix(prefix): n for n in weights.shapes if n.startswith(prefix)}
        foreign = inverse(own, lambda name: autoencoder_to_diffusers(name, num_levels=num_levels))
        if "decoder.mid_block.resnets.0.norm1.weight" in weights.shapes:
            ours = {foreign.get(name, name): name for name in weights.shapes}
        # diffusers keeps the 1x1 convolutions of attention as matrices.
        shapes = {
            name: torch.Size([*weights.shapes[old], 1, 1])
            if name in own and len(own[name].shape) == 4 and len(weights.shapes[old]) == 2
            else weights.shapes[old]
            for name, old in ours.items()
        }
        check_fit({name: tensor.shape for name, tensor in own.items()}, shapes, path)
        with torch.no_grad():
            for name, old in ours.items():
                own[name].copy_(check_finite(weights[old], old, path).reshape(shapes[name]))
