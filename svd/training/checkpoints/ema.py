"""The running average of the weights, which is what a stage hands on.

Kept in fp32 over the same shards as the master weights: updating it needs no communication.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def ema_decay_at(decay: float, num_updates: int) -> float:
    """Return the decay of an update, which rises to its final value.

    Without a ramp-up the average would remember its random start for 1/(1-decay) steps.
    Source: LitEma of Stability-AI/generative-models, min(decay, (1 + n) / (10 + n)).

    Args:
        decay: Final decay per step.
        num_updates: Updates made before this one.
    """
    n = num_updates + 1
    return min(decay, (1 + n) / (10 + n))


class ShardedEma:
    """Averages of this rank's flat master weights."""

    def __init__(self, masters: Sequence[Tensor], *, decay: float) -> None:
        """Start at the present weights.

        Args:
            masters: The flat fp32 tensors; kept by reference.
            decay: Final decay per step, in [0, 1).
        """
        self._masters = list(masters)
        self._decay = decay
        self.flats = [master.detach().clone() for master in self._masters]
        self.num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights, after an optimizer step."""
        weight = 1 - ema_decay_at(self._decay, self.num_updates)
        torch._foreach_lerp_(self.flats, self._masters, weight)
        self.num_updates += 1
