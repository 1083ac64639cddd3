"""A patch discriminator of 3D convolutions: real or decoded, told for patches of space and time.

The PatchGAN of Isola 2017 with a third axis, as Video LDM trains its decoder against (Blattmann
2023, section 3.1); group norm stands in place of batch norm, because a batch holds a clip or two.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_SLOPE = 0.2  # of the leaky units below zero; Isola 2017
_INITIAL_STD = 0.02  # of kernels; Isola 2017
_MAX_WIDENING = 8  # of the first layer's channels; Isola 2017
_NORM_GROUPS = 8


class PatchDiscriminator(nn.Module):
    """Strided convolutions that halve height and width and keep the frames."""

    def __init__(self, *, channels: int, num_layers: int) -> None:
        """Build it.

        Args:
            channels: Of the first layer; a multiple of 8. They double up to eight times as many.
            num_layers: That halve the picture.
        """
        super().__init__()
        widths = [channels * min(2**level, _MAX_WIDENING) for level in range(num_layers + 1)]
        layers: list[nn.Module] = [_conv(3, widths[0], stride=2), nn.LeakyReLU(_SLOPE)]
        for level in range(1, num_layers + 1):
            layers += [
                _conv(widths[level - 1], widths[level], stride=2 if level < num_layers else 1),
                nn.GroupNorm(_NORM_GROUPS, widths[level]),
                nn.LeakyReLU(_SLOPE),
            ]
        self.layers = nn.Sequential(*layers, _conv(widths[-1], 1, stride=1))

    def forward(self, clips: Float[Tensor, "b 3 t H W"]) -> Float[Tensor, "b 1 t h w"]:
        """Return one number per patch: high for real."""
        result: Tensor = self.layers(clips)
        return result


def new_discriminator(
    *, channels: int, num_layers: int, generator: torch.Generator
) -> PatchDiscriminator:
    """Return a discriminator whose kernels are drawn from a generator."""
    network = PatchDiscriminator(channels=channels, num_layers=num_layers)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                module.weight.normal_(0, _INITIAL_STD, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    return network


def hinge_loss(
    real: Float[Tensor, "b 1 t h w"], decoded: Float[Tensor, "b 1 t h w"]
) -> Float[Tensor, ""]:
    """Return what the discriminator lowers: half the mean of both hinges (Lim and Ye 2017)."""
    return (F.relu(1 - real).mean() + F.relu(1 + decoded).mean()) / 2


def _conv(in_channels: int, out_channels: int, *, stride: int) -> nn.Conv3d:
    return nn.Conv3d(
        in_channels, out_channels, (3, 4, 4), stride=(1, stride, stride), padding=(1, 1, 1)
    )
