"""Kernel distance (KID): unbiased at any N, but only for independent sets."""

from jaxtyping import Float
from torch import Tensor

from svd.errors import ConfigError


def kernel_distance(
    features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m d"], *, degree: int = 3
) -> float:
    """Return the unbiased squared maximum mean discrepancy under a polynomial kernel.

    The expectation is 0 for two independent draws of one distribution, at any N. For paired sets
    (a video and its reconstruction) it is negative and means nothing: do not use it there.

    Args:
        features_a: One set.
        features_b: An independent set.
        degree: Of the kernel (x.y / d + 1)^degree.

    Raises:
        ConfigError: A set has fewer than two vectors.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs", cubic kernel.
    """
    num_a, num_b = features_a.shape[0], features_b.shape[0]
    if min(num_a, num_b) < 2:
        raise ConfigError(f"a kernel distance needs 2 examples a side, got {num_a} and {num_b}")
    a, b = features_a.double(), features_b.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** degree

    within_a, within_b = kernel(a, a), kernel(b, b)
    mean_a = (within_a.sum() - within_a.trace()) / (num_a * (num_a - 1))
    mean_b = (within_b.sum() - within_b.trace()) / (num_b * (num_b - 1))
    return float(mean_a + mean_b - 2 * kernel(a, b).mean())
