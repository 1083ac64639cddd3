"""Our own held-out clips: what a model makes of first frames it has never seen."""

from typing import Final

from svd.evaluation.datasets.curated import CURATED
from svd.evaluation.protocols.base import ProtocolCard
from svd.evaluation.protocols.comparison import VideoComparison
from svd.evaluation.protocols.framing import AsSampled

IMAGE_TO_VIDEO: Final = VideoComparison(
    card=ProtocolCard(
        name="heldout",
        title="Our held-out clips, image to video",
        question="Do animated first frames look and move like the clips that curation held out?",
        dataset=CURATED,
        sources=("image-to-video", "files", "truth"),
        assumed=("the clips are our own",),
    ),
    num_frames=25,
    frame_real=AsSampled(576, 1024),
    frame_generated=AsSampled(576, 1024),
    paired=True,
    likeness=("psnr", "psnr-clip", "ssim", "lpips", "flicker", "energy"),
)
RECONSTRUCTION: Final = VideoComparison(
    card=ProtocolCard(
        name="heldout-recon",
        title="Our held-out clips, reconstruction by the autoencoder",
        question="How much of our own clips does the autoencoder lose?",
        dataset=CURATED,
        sources=("reconstruction", "files", "truth"),
        assumed=("the clips are our own",),
    ),
    num_frames=17,
    frame_real=AsSampled(256, 256),
    frame_generated=AsSampled(256, 256),
    paired=True,
    likeness=("psnr", "psnr-clip", "ssim", "lpips"),
)
