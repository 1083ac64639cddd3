"""Likeness of pictures: PSNR in both of its averages, and SSIM as the VAE papers compute it."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.errors import ConfigError

PSNR_CAP_DB = 100.0  # for identical pictures, whose PSNR is infinite
_WINDOW = 11  # pixels; Wang et al. 2004
_WINDOW_SIGMA = 1.5  # pixels; Wang et al. 2004
_K1, _K2 = 0.01, 0.03  # stabilisers of SSIM; Wang et al. 2004


def psnr_per_frame(
    frames_a: UInt8[Tensor, "n c H W"], frames_b: UInt8[Tensor, "n c H W"]
) -> Float[Tensor, " n"]:
    """Return each frame's peak signal-to-noise ratio in dB, for 8-bit pictures.

    Average this over frames for the usual PSNR of a video.
    """
    return _psnr(_squared_error(frames_a, frames_b).mean(dim=(1, 2, 3)))


def psnr_per_clip(
    frames_a: UInt8[Tensor, "t c H W"], frames_b: UInt8[Tensor, "t c H W"]
) -> Float[Tensor, ""]:
    """Return the PSNR in dB of the mean squared error over a whole clip.

    Never above the mean of `psnr_per_frame` (Jensen); papers mix the two.
    """
    return _psnr(_squared_error(frames_a, frames_b).mean())


def ssim_per_frame(
    frames_a: UInt8[Tensor, "n c H W"], frames_b: UInt8[Tensor, "n c H W"]
) -> Float[Tensor, " n"]:
    """Return each frame's structural similarity, -1..1.

    Gaussian window of 11 pixels and sigma 1.5, valid region only, each channel alone and then the
    mean of channels, in float64.

    Raises:
        ConfigError: The pictures are smaller than the window.

    Source: Wang et al. 2004, "Image quality assessment", equation 13.
    """
    if min(frames_a.shape[-2:]) < _WINDOW:
        raise ConfigError(
            f"SSIM needs pictures of at least {_WINDOW} pixels, got {tuple(frames_a.shape[-2:])}"
        )
    x, y = frames_a.double(), frames_b.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * 255) ** 2, (_K2 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _squared_error(frames_a: Tensor, frames_b: Tensor) -> Tensor:
    return (frames_a.double() - frames_b.double()).square()


def _psnr(mean_squared_error: Tensor) -> Tensor:
    return (20 * torch.log10(255 / mean_squared_error.sqrt())).clamp(max=PSNR_CAP_DB)


def _blur(frames: Tensor) -> Tensor:
    """Filter with the Gaussian window, rows then columns, valid region only.

    As sums of shifted slices: in float64 on a CPU four times as fast as torch's convolution.
    """
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * _WINDOW_SIGMA**2))
    weights = (window / window.sum()).tolist()
    for axis in (-1, -2):
        length = frames.shape[axis] - _WINDOW + 1
        blurred = weights[0] * frames.narrow(axis, 0, length)
        for place, weight in enumerate(weights[1:], start=1):
            blurred.add_(frames.narrow(axis, place, length), alpha=weight)
        frames = blurred
    return frames
