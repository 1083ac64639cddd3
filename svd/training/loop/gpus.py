"""What GPUs can do, as their maker says."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        device_name: Part of what torch calls the device.
        memory_gib: Of one device, as its driver reports it: a little below the name's number.
        flops: Operations per second in bf16 on dense matrices, at best.
    """

    device_name: str
    memory_gib: float
    flops: float


# Source: NVIDIA's data sheets. The first whose name fits is taken, so the longer name comes first.
GPUS: Final[dict[str, Gpu]] = {
    "a100-80gb": Gpu("A100", 79, 312e12),
    "h100-pcie": Gpu("H100 PCIe", 79, 756e12),
    "h100": Gpu("H100", 79, 989e12),
    "h200": Gpu("H200", 139, 989e12),
    "b200": Gpu("B200", 178, 2250e12),
    "l40s": Gpu("L40S", 44, 362e12),
    "a40": Gpu("A40", 44, 150e12),
    "a10": Gpu("A10", 22, 125e12),
    "rtx-4090": Gpu("RTX 4090", 23, 165e12),
}
