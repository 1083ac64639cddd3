"""The denoising loss, in the space of the network's output.

With the paper's preconditioning and lambda(sigma) = (1 + sigma^2) / sigma^2 the weight of the
squared error of the raw network output F is exactly one: lambda * c_out^2 = 1. So we regress F on
the velocity v and never form the denoised latents, nor divide by a small sigma.
Source: SVD paper, appendix D.1, with c_skip, c_out and lambda inserted.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from svd.types.batch import Conditioning


@runtime_checkable
class Network(Protocol):
    """The raw network F in its preconditioned form: F(c_in * x; c_noise(sigma), conditioning)."""

    def __call__(
        self,
        noisy_latents: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, " b"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "b t c h w"]:
        """Return F."""


class LossParts(NamedTuple):
    """The loss of a micro-batch and what it is made of."""

    loss: Float[Tensor, ""]  # mean over examples
    per_example: Float[Tensor, " b"]  # mean squared error of F, detached
    sigma: Float[Tensor, " b"]


def velocity_target(
    latents: Float[Tensor, "b t c h w"],
    noise: Float[Tensor, "b t c h w"],
    sigma: Float[Tensor, "b 1 1 1 1"],
) -> Float[Tensor, "b t c h w"]:
    """Return v = (noise - sigma * latents) / sqrt(1 + sigma^2), what F should be.

    Source: (x0 - c_skip * x) / c_out for x = x0 + sigma * noise.
    """
    return (noise - sigma * latents) / (1 + sigma**2).sqrt()


def denoising_loss(
    network: Network,
    *,
    latents: Float[Tensor, "b t c h w"],
    noise: Float[Tensor, "b t c h w"],
    sigma: Float[Tensor, " b"],
    conditioning: Conditioning,
) -> LossParts:
    """Return the unit-weight squared error of F, in fp32.

    Args:
        network: The raw network, as the engine runs it.
        latents: Clean latents, scaled to about unit variance.
        noise: Standard normal.
        sigma: One noise level per clip.
        conditioning: What the network may know of the clip.
    """
    level = sigma[:, None, None, None, None]
    output = network(latents + level * noise, sigma, conditioning)
    error = (output.float() - velocity_target(latents, noise, level)).square()
    per_example = error.mean(dim=(1, 2, 3, 4))
    return LossParts(loss=per_example.mean(), per_example=per_example.detach(), sigma=sigma)
