"""OpenVid-1M: image to video from held-out first frames, after OSV's baseline rows."""

from typing import Final

from svd.evaluation.datasets.openvid import OPENVID
from svd.evaluation.protocols.base import ProtocolCard
from svd.evaluation.protocols.comparison import VideoComparison
from svd.evaluation.protocols.framing import AsSampled

IMAGE_TO_VIDEO: Final = VideoComparison(
    card=ProtocolCard(
        name="openvid-i2v",
        title="OpenVid-1M, image to video, FVD of 2,048 held-out clips",
        question="Do animated first frames look and move, as a set, like the real clips?",
        dataset=OPENVID,
        sources=("image-to-video", "files", "truth"),
        assumed=("2,048 clips drawn by hash, 576x1024: OSV states neither its split nor its size",),
        sampling={"num_frames": 14, "height": 576, "width": 1024, "fps": 7, "cond_aug": 0.02},
    ),
    num_frames=25,
    num_clips=2048,
    frame_real=AsSampled(576, 1024),
    frame_generated=AsSampled(576, 1024),
    paired=True,
    likeness=("psnr", "ssim", "lpips", "flicker", "energy"),
)
