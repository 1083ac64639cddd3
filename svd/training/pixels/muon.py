"""Muon: momentum whose singular values are made equal, for convolution kernels.

A small network trained for a few hundred steps gets much further with it than with Adam alone
(benchmarks/LOG.md). Parameters that are no kernels, and kernels with few outputs, keep Adam.
Source: K. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
"""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Quintic iteration x -> a x + b x^3 + c x^5, which drives singular values of (0, 1] to about 1 in
# five passes. Source: Jordan 2024.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_PASSES = 5
_MIN_OUTPUTS = 5  # of a kernel; fewer have no spectrum worth balancing


def orthogonalize(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return about U V^T of the matrix U S V^T: its singular values become 0.7 to 1.2."""
    a, b, c = _QUINTIC
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_NUM_PASSES):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if matrix.shape[0] > matrix.shape[1] else x
    return result


class Muon:
    """Muon on the kernels of a network, Adam on all else."""

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], *, momentum: float = 0.95
    ) -> None:
        """Take named parameters.

        Args:
            parameters: What is trained.
            momentum: Share of the old momentum that a step keeps; Nesterov's look-ahead is on.
        """
        named = dict(parameters)
        self._kernels = {
            name: parameter
            for name, parameter in named.items()
            if parameter.ndim == 4 and parameter.shape[0] >= _MIN_OUTPUTS
        }
        self._others = {n: p for n, p in named.items() if n not in self._kernels}
        self._momentum = momentum
        self._momenta = {n: torch.zeros_like(p) for n, p in self._kernels.items()}
        # The rate is set before each step. foreach=False: one way of computing, whatever the
        # tensors' memory layout.
        self._adam = torch.optim.Adam(
            self._others.values(), lr=0.0, betas=(0.9, 0.95), foreach=False
        )

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in (*self._kernels.values(), *self._others.values()):
            parameter.grad = None

    @torch.no_grad()
    def step(self, *, lr: float, kernel_lr: float) -> None:
        """Make one step at these rates: of Adam, and of Muon."""
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        for name, parameter in self._kernels.items():
            if parameter.grad is None:
                continue
            momentum = self._momenta[name].lerp_(parameter.grad, 1 - self._momentum)
            ahead = parameter.grad.lerp(momentum, self._momentum).flatten(1)
            # A tall matrix of equal singular values has small rows; this gives them back.
            gain = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
            update = orthogonalize(ahead).reshape(parameter.shape)
            parameter.add_(update, alpha=-kernel_lr * gain)

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs beside the weights and the number of steps."""
        tensors = {f"momentum.{name}": tensor for name, tensor in self._momenta.items()}
        for name, parameter in self._others.items():
            moments = self._adam.state[parameter]
            tensors[f"mean.{name}"] = moments["exp_avg"]
            tensors[f"square.{name}"] = moments["exp_avg_sq"]
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Take back what `state` returned after so many steps.

        Tensors are filled in place, so that they have the memory layout of an unbroken run.
        """
        for name, momentum in self._momenta.items():
            momentum.copy_(tensors[f"momentum.{name}"])
        for name, parameter in self._others.items():
            self._adam.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": torch.empty_like(parameter).copy_(tensors[f"mean.{name}"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"square.{name}"]),
            }
