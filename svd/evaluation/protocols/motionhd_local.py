"""MotionHD-local: reconstruction of one's own HD clips, by how much they move."""

from typing import Final

from svd.evaluation.datasets.motionhd_local import MOTIONHD_LOCAL
from svd.evaluation.protocols.base import ProtocolCard
from svd.evaluation.protocols.comparison import VideoComparison
from svd.evaluation.protocols.framing import Square

RECONSTRUCTION: Final = VideoComparison(
    card=ProtocolCard(
        name="motionhd-local",
        title="Reconstruction of HD clips by amount of motion",
        question="Does the autoencoder lose more where more moves?",
        dataset=MOTIONHD_LOCAL,
        sources=("reconstruction", "files", "truth"),
        assumed=("clips are the user's own: IV-VAE's MotionHD was not published",),
    ),
    num_frames=17,
    frame_real=Square(480, antialias=True),
    frame_generated=Square(480, antialias=True),
    paired=True,
    likeness=("psnr", "psnr-clip", "ssim", "lpips"),
    by_group=True,
)
