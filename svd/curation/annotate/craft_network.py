"""CRAFT's network: where characters are in a picture, and where two of them belong together.

Source: Baek 2019, "Character Region Awareness for Text Detection", figure 2, and the names of the
authors' weights (craft_mlt_25k.pth): a VGG16 with batch norm, read at five depths, and a decoder
that joins them from coarse to fine.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vgg import cfgs, make_layers

# Layers of torchvision's VGG16-BN in each slice: up to the convolutions 2_2, 3_3, 4_3 and 5_3.
_SLICES: Final = ((0, 12), (12, 19), (19, 29), (29, 39))


class VggSlices(nn.Module):
    """VGG16-BN in slices; the fifth stands for its first fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        layers = make_layers(cfgs["D"], batch_norm=True)
        parts = []
        for start, stop in _SLICES:
            part = nn.Sequential()
            for number in range(start, stop):  # the file's names have VGG's numbers
                part.add_module(str(number), layers[number])
            parts.append(part)
        self.slice1, self.slice2, self.slice3, self.slice4 = parts
        self.slice5 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
            nn.Conv2d(512, 1024, kernel_size=3, padding=6, dilation=6),
            nn.Conv2d(1024, 1024, kernel_size=1),
        )

    def forward(self, pixels: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the maps of all slices, finest first: 1/2, 1/4, 1/8, 1/16, 1/16 of the size."""
        # A slice begins with the ReLU of the convolution before it. VGG's work in place, so the
        # map that the decoder reads has been through it too, as when the weights were trained.
        maps = [pixels]
        for part in (self.slice1, self.slice2, self.slice3, self.slice4, self.slice5):
            maps.append(part(maps[-1]))
        return maps[1:]


class JoinBlock(nn.Module):
    """Two convolutions over a coarse and a finer map, joined."""

    def __init__(self, joined: int, middle: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(joined, middle, kernel_size=1),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, out, kernel_size=3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        )

    def forward(self, coarse: Float[Tensor, "b c h w"], finer: Tensor) -> Tensor:
        """Return the joined map, in the finer one's size."""
        if coarse.shape[-2:] != finer.shape[-2:]:
            coarse = functional.interpolate(
                coarse, size=finer.shape[-2:], mode="bilinear", align_corners=False
            )
        joined: Tensor = self.conv(torch.cat([coarse, finer], dim=1))
        return joined


class Craft(nn.Module):
    """The detector; its names are those of the authors' weights behind "module."."""

    def __init__(self) -> None:
        super().__init__()
        self.basenet = VggSlices()
        self.upconv1 = JoinBlock(1024 + 512, 512, 256)
        self.upconv2 = JoinBlock(256 + 512, 256, 128)
        self.upconv3 = JoinBlock(128 + 256, 128, 64)
        self.upconv4 = JoinBlock(64 + 128, 64, 32)
        self.conv_cls = nn.Sequential(
            nn.Conv2d(32, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(16, 2, kernel_size=1),
        )

    def forward(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 2 h w"]:
        """Return the region and affinity scores, about 0..1, at half the picture's size.

        Args:
            pixels: RGB with ImageNet's mean and deviation; sides are multiples of 32.
        """
        half, quarter, eighth, sixteenth, deepest = self.basenet(pixels)
        joined = self.upconv1(deepest, sixteenth)
        joined = self.upconv2(joined, eighth)
        joined = self.upconv3(joined, quarter)
        scores: Tensor = self.conv_cls(self.upconv4(joined, half))
        return scores
