"""How a video moves: flicker, motion energy, and how two sets of videos differ in motion."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def flicker(frames: UInt8[Tensor, "t c H W"]) -> float:
    """Return the mean absolute difference of neighbouring frames, in grey levels 0..255.

    0 is a still picture. On a static scene it is pure flicker (VBench's temporal flickering is
    1 - this / 255); on a moving one it is motion too, so compare it with the real clip's.
    """
    return float((frames[1:].double() - frames[:-1].double()).abs().mean())


def error_flicker(decoded: UInt8[Tensor, "t c H W"], real: UInt8[Tensor, "t c H W"]) -> float:
    """Return how much the error changes between neighbouring frames, in mean absolute grey levels.

    0 if every frame is wrong in the same way or not at all; motion that both share is no flicker.
    """
    error = decoded.double() - real.double()
    return float((error[1:] - error[:-1]).abs().mean())


def motion_energy(frames: UInt8[Tensor, "t c H W"]) -> float:
    """Return the mean squared difference of neighbouring frames, in squared grey levels."""
    return float((frames[1:].double() - frames[:-1].double()).square().mean())


def energy_ratio(
    sample: UInt8[Tensor, "t c H W"], real: UInt8[Tensor, "t c H W"], *, floor: float = 0.25
) -> float:
    """Return the sample's motion energy over the real clip's; 1 moves as much as the truth.

    Args:
        sample: The generated video.
        real: The video it was conditioned on.
        floor: Added to both, in squared grey levels: half a grey level of rounding noise, so that
            the ratio of two still videos is 1.
    """
    return (motion_energy(sample) + floor) / (motion_energy(real) + floor)


def motion_histogram_distance(
    values_a: Float[Tensor, " n"], values_b: Float[Tensor, " m"]
) -> float:
    """Return the 1-Wasserstein distance of two sets of per-clip motion values, in their unit.

    Computed exactly, as the area between the two empirical distribution functions.
    """
    a, b = values_a.double().sort().values, values_b.double().sort().values
    points = torch.cat([a, b]).sort().values
    starts = points[:-1].contiguous()
    share_a = torch.searchsorted(a, starts, right=True).double() / a.numel()
    share_b = torch.searchsorted(b, starts, right=True).double() / b.numel()
    return float(((share_a - share_b).abs() * points.diff()).sum())


def sharpness(frames: UInt8[Tensor, "t c H W"]) -> float:
    """Return the mean absolute gradient of the luma, in grey levels per pixel; low is blurred."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)  # BT.601
    luma = (frames.double() * weights).sum(dim=1)
    across = (luma[:, :, 1:] - luma[:, :, :-1]).abs().mean()
    down = (luma[:, 1:] - luma[:, :-1]).abs().mean()
    return float((across + down) / 2)
