"""What the two CLIP towers share: size by name, seeded random weights, a strict load.

The towers import open_clip when they are built, not when their modules are imported: it brings
timm, torchvision and transformers, which take seconds that most users of a sampler or a training
step would pay for nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from svd.errors import ConfigError
from svd.models.checkpoints.weights import check_finite, check_fit, open_weights


def architecture_config(name: str) -> dict[str, Any]:
    """Return open_clip's JSON of a plain CLIP ViT: embed_dim, vision_cfg, text_cfg.

    Raises:
        ConfigError: open_clip does not know the name.
    """
    from open_clip import get_model_config

    config: dict[str, Any] | None = get_model_config(name)
    if config is None:
        raise ConfigError(f"architecture={name} is not a model of open_clip, e.g. ViT-H-14")
    return config


def pixel_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of CLIP's training pixels in 0..1, per channel."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    return tuple(OPENAI_DATASET_MEAN), tuple(OPENAI_DATASET_STD)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make the initialisers of foreign modules depend on a seed, without a trace outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def initial_values(weights: str | None, seed: int) -> Iterator[None]:
    """Have a tower built with random weights from a seed, or with none if a file will give them.

    Drawing a ViT-H only to overwrite it takes half a minute.
    """
    if weights is not None:
        with torch.device("meta"):
            yield
    else:
        with seeded(seed):
            yield


def freeze(module: nn.Module) -> None:
    """Take a module out of training for good."""
    module.eval().requires_grad_(requires_grad=False)


def load_tower(
    tower: nn.Module,
    path: Path,
    *,
    prefixes: Sequence[str],
    unread: Callable[[str], bool] = lambda _: False,
) -> None:
    """Fill a tower from a safetensors file, one tensor at a time.

    Args:
        tower: The module to fill.
        path: A file that may also hold other modules.
        prefixes: Where the tower lies in known layouts; the first that occurs is taken.
        unread: Whether a tensor (its name without the prefix) is known and not needed.

    Raises:
        MissingInputError: No such file.
        CheckpointError: Not a safetensors file, or tensors are missing, extra, mis-shaped or not
            finite.
    """
    wanted = tower.state_dict()
    with open_weights(path) as weights:
        prefix = next((p for p in prefixes if any(n.startswith(p) for n in weights.shapes)), "")
        stripped = {n.removeprefix(prefix): n for n in weights.shapes if n.startswith(prefix)}
        found = {new: old for new, old in stripped.items() if not unread(new)}
        check_fit(
            {name: tensor.shape for name, tensor in wanted.items()},
            {new: weights.shapes[old] for new, old in found.items()},
            path,
        )
        with torch.no_grad():
            for new, old in found.items():
                wanted[new].copy_(check_finite(weights[old], old, path))
