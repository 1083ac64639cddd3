"""A job of one rank inside the test process."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from svd.models.networks.unet import SpatioTemporalUNet


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def drawn_unet(unet: SpatioTemporalUNet) -> SpatioTemporalUNet:
    """Draw the layers that start at zero too, so that every part of the UNet counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    return unet
