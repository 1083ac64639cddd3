"""Weights that an autoencoder starts from: random, or a file in one of the known layouts."""

from pathlib import Path

import torch
from torch import Tensor, nn

from svd.config.model import AutoencoderConfig
from svd.errors import CheckpointError, MissingInputError
from svd.models.checkpoints.key_maps import autoencoder_to_diffusers, inverse
from svd.models.checkpoints.weights import check_finite, check_fit, open_weights
from svd.models.networks.autoencoder import AttentionBlock, Autoencoder, ResnetBlock
from svd.models.networks.layers import zero
from svd.runtime.seed import torch_generator
from svd.runtime.storage import open_store

_PREFIXES = ("first_stage_model.", "")  # Stable Diffusion's checkpoints; our own files
_KERNELS = 32  # what a draw decides; the second part of its key, after the seed


def new_autoencoder(config: AutoencoderConfig, *, seed: int, initial_logvar: float) -> Autoencoder:
    """Return an autoencoder that is ready to be trained from nothing.

    Its residual branches end in zeros, so that at first it is a chain of orthogonal convolutions:
    pictures pass through from the first step on.

    Args:
        config: The network.
        seed: Of the kernels.
        initial_logvar: Log variance of the posterior. A quiet one lets pictures pass before noise
            must be fought.
    """
    autoencoder = Autoencoder(config)
    generator = torch_generator(seed, _KERNELS)
    with torch.no_grad():
        for module in autoencoder.modules():
            if isinstance(module, nn.Conv2d):
                kernel = torch.empty(module.weight.flatten(1).shape)
                nn.init.orthogonal_(kernel, generator=generator)
                module.weight.copy_(kernel.reshape(module.weight.shape))
                _bias(module).zero_()
        for module in autoencoder.modules():
            if isinstance(module, ResnetBlock):
                zero(module.conv2)
            elif isinstance(module, AttentionBlock):
                zero(module.proj_out)
        _bias(autoencoder.quant_conv)[config.latent_channels :] = initial_logvar
    return autoencoder


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise CheckpointError("a convolution of the autoencoder has no bias")
    return conv.bias


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
