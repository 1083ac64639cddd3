"""WebVid-10M validation, reconstruction: measured on frames, and as WF-VAE did on mp4v files."""

from dataclasses import replace
from typing import Final

from svd.evaluation.datasets.webvid import WEBVID
from svd.evaluation.protocols.base import ProtocolCard
from svd.evaluation.protocols.comparison import VideoComparison
from svd.evaluation.protocols.framing import Square

_CARD = ProtocolCard(
    name="webvid-recon",
    title="WebVid-10M validation, reconstruction by the autoencoder",
    question="How near are reconstructed frames to the real ones?",
    dataset=WEBVID,
    sources=("reconstruction", "files", "truth"),
    precision="bf16",
    assumed=("frames are scored as they come; the paper scores re-read mp4v files",),
)
# Source: Li et al. 2024 (WF-VAE) and its code: 33 frames from the first, shorter side to 256 and
# the central square, autoencoder in bf16, mode of the posterior.
RECONSTRUCTION: Final = VideoComparison(
    card=_CARD,
    num_frames=33,
    frame_real=Square(256, antialias=False),
    frame_generated=Square(256, antialias=False),
    paired=True,
    likeness=("psnr", "psnr-clip", "ssim", "lpips"),
)
MP4V_RECONSTRUCTION: Final = replace(
    RECONSTRUCTION,
    card=replace(
        _CARD,
        name="webvid-recon-mp4v",
        title="WebVid-10M validation, reconstruction, re-read from mp4v files",
        question="What would WF-VAE's own script say, mp4v files and all?",
        assumed=("LPIPS is the mean over frames at 256 px; the number of clips is not stated",),
    ),
    through_mp4v=True,
)
