"""A network with an Adam of its own, which a resumed run takes up to the bit."""

import math
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svd.errors import TrainingDivergedError

# Of Adam; Esser 2021's code, as the release's autoencoders are trained.
_BETAS = (0.5, 0.9)
_MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq", "count": "step"}  # Adam's, by our names

N = TypeVar("N", bound=nn.Module)


class Learner(Generic[N]):
    """A network with its optimizer; what is frozen has no part in it."""

    def __init__(self, network: N) -> None:
        self.network = network
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        # The rate is set before each step. foreach=False: one way of computing, whatever the
        # tensors' memory layout.
        self._adam = torch.optim.Adam(self.trained.values(), lr=0.0, betas=_BETAS, foreach=False)

    def step(self, loss: Float[Tensor, ""], *, lr: float, grad_clip: float) -> float:
        """Make one step down a loss; return the gradient's norm before clipping.

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; raised before the update.
        """
        parameters = list(self.trained.values())
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, grad_clip))
        value = loss.item()
        if not (math.isfinite(norm) and math.isfinite(value)):
            raise TrainingDivergedError(
                f"finetune-decoder: loss {value} and gradient norm {norm} of "
                f"{type(self.network).__name__}"
            )
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and moments, by name; a parameter that never learned has no moments."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.trained.items():
            tensors[f"weight.{name}"] = parameter.detach()
            moments = self._adam.state[parameter]
            tensors |= {f"{ours}.{name}": moments[key] for ours, key in _MOMENTS.items() if moments}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, in the memory layout of an unbroken run."""
        for name, parameter in self.trained.items():
            parameter.copy_(tensors[f"weight.{name}"])
            if f"mean.{name}" in tensors:
                self._adam.state[parameter] = {
                    "step": tensors[f"count.{name}"],
                    "exp_avg": torch.empty_like(parameter).copy_(tensors[f"mean.{name}"]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"square.{name}"]),
                }
