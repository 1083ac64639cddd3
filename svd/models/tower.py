"""What the two CLIP towers share: size by name, seeded random weights, a strict load."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from svd.errors import CheckpointError, ConfigError, MissingInputError

_SHOWN = 8  # names listed in an error


def architecture_config(name: str) -> dict[str, Any]:
    """Return open_clip's JSON of a plain CLIP ViT: embed_dim, vision_cfg, text_cfg.

    Raises:
        ConfigError: open_clip does not know the name.
    """
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f"architecture={name} is not a model of open_clip, e.g. ViT-H-14")
    return config


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make the initialisers of foreign modules depend on a seed, without a trace outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
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
        CheckpointError: Not a safetensors file, or tensors are missing, extra or mis-shaped.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; give the weights of the CLIP tower")
    wanted = tower.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            prefix = next((p for p in prefixes if any(n.startswith(p) for n in names)), "")
            stripped = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
            found = {new: old for new, old in stripped.items() if not unread(new)}
            shapes = {new: tuple(file.get_slice(old).get_shape()) for new, old in found.items()}
            _check_fit(wanted, shapes, origin=str(path))
            for new, old in found.items():
                wanted[new].copy_(file.get_tensor(old))
    except SafetensorError as err:
        raise CheckpointError(f"{path}: not a readable safetensors file: {err}") from err


def _check_fit(
    wanted: dict[str, Tensor], found: dict[str, tuple[int, ...]], *, origin: str
) -> None:
    """Raise a CheckpointError that lists what does not fit."""
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    misshaped = [
        f"{name} {found[name]} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if tuple(wanted[name].shape) != found[name]
    ]
    faults = [
        f"{len(names)} {kind}: {_listed(names)}"
        for kind, names in (("missing", missing), ("extra", extra), ("mis-shaped", misshaped))
        if names
    ]
    if faults:
        raise CheckpointError(f"{origin}: the CLIP tower does not fit: " + "; ".join(faults))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
