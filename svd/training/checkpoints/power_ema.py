"""Averages over a fixed share of the training so far, and any other length after the fact.

A power-function average weighs the weights at time t' by t'^gamma; its width relative to the
present time is a constant, its relative standard deviation. Snapshots of two widths, kept while
training, span such averages of every width between: the weights of the sum that comes closest
solve a small linear system. Source: Karras 2024 (EDM2, arXiv 2312.02696), section 3, appendix C.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from svd.errors import MissingInputError
from svd.models.checkpoints.weights import open_weights


class Profile(NamedTuple):
    """How an average weighs the past: its end in steps, and gamma."""

    end: float
    gamma: float


def gamma_of(std: float) -> float:
    """Return the exponent of the average whose relative standard deviation is given.

    Source: Karras 2024, section 3.1: std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).
    """
    inverse = std**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(np.max(roots.real))


def decay_at(gamma: float, step: int) -> float:
    """Return the decay of the step-th update, counted from 1: the first forgets the start.

    Source: Karras 2024, section 3.1.
    """
    return float((1 - 1 / step) ** (gamma + 1))


def inner_product(a: Profile, b: Profile) -> float:
    """Return the integral of two profiles' product. Source: Karras 2024, appendix C."""
    ratio = a.end / b.end
    power = b.gamma if a.end < b.end else -a.gamma
    top = (a.gamma + 1) * (b.gamma + 1) * ratio**power
    return float(top / ((a.gamma + b.gamma + 1) * max(a.end, b.end)))


def solve_weights(snapshots: Sequence[Profile], wanted: Profile) -> Float[ndarray, " n"]:
    """Return the factors of the snapshots whose sum comes closest to another average.

    Source: Karras 2024, appendix C.2: the least-squares fit of the profiles.
    """
    gram = np.array([[inner_product(a, b) for b in snapshots] for a in snapshots])
    target = np.array([inner_product(a, wanted) for a in snapshots])
    solved: Float[ndarray, " n"] = np.linalg.solve(gram, target)
    return solved


class PowerEma:
    """Power-function averages of this rank's flat master weights, in fp32 over the same shards."""

    def __init__(self, masters: Sequence[Tensor], *, stds: Sequence[float]) -> None:
        """Start at the present weights, which the first update forgets.

        Args:
            masters: The flat fp32 tensors; kept by reference.
            stds: Relative standard deviations, one average each.
        """
        self._masters = list(masters)
        self._gammas = {std: gamma_of(std) for std in stds}
        self.flats = {std: [m.detach().clone() for m in self._masters] for std in stds}
        self.num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages, after an optimizer step."""
        self.num_updates += 1
        for std, flats in self.flats.items():
            weight = 1 - decay_at(self._gammas[std], self.num_updates)
            torch._foreach_lerp_(flats, self._masters, weight)


class SnapshotFile(NamedTuple):
    """An average on disk: fp16, as EDM2 keeps them."""

    path: Path
    step: int
    std: float

    @property
    def profile(self) -> Profile:
        """How it weighs the past."""
        return Profile(self.step, gamma_of(self.std))


def snapshot_path(folder: Path, *, step: int, std: float) -> Path:
    """Return where an average is kept."""
    return folder / f"step-{step:09d}-std-{std:g}.safetensors"


def find_snapshots(folder: Path) -> list[SnapshotFile]:
    """Return the averages that were kept, by step."""
    found = []
    for path in sorted(folder.glob("step-*-std-*.safetensors")):
        _, step, _, std = path.stem.split("-", 3)
        found.append(SnapshotFile(path, int(step), float(std)))
    return found


def reconstruct(
    snapshots: Sequence[SnapshotFile], *, std: float, step: int
) -> dict[str, Float[Tensor, "..."]]:
    """Return the parameters of the average of any width that ends at a step.

    Raises:
        MissingInputError: There is no snapshot of that step.
    """
    usable = [snapshot for snapshot in snapshots if snapshot.step <= step]
    if not usable or usable[-1].step != step:
        have = ", ".join(str(number) for number in sorted({one.step for one in snapshots}))
        raise MissingInputError(f"no snapshot of step {step}; there are: {have or 'none'}")
    factors = solve_weights([one.profile for one in usable], Profile(step, gamma_of(std)))
    sums: dict[str, Tensor] = {}
    for snapshot, factor in zip(usable, factors.tolist(), strict=True):
        with open_weights(snapshot.path) as weights:
            for name, tensor in weights:
                term = tensor.float() * factor
                sums[name] = term if name not in sums else sums[name].add_(term)
    return sums
