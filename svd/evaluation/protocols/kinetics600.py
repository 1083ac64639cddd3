"""Kinetics-600: reconstruction by an autoencoder, and prediction from given frames.

Public leaderboards list "video prediction, FVD 6.26" for SVD. That number is the reconstruction
FVD of its autoencoder (IV-VAE, Table 1), as its neighbours in that table show; so there are two
protocols, each under its own name.
"""

from typing import Final

from svd.evaluation.datasets.kinetics600 import KINETICS600
from svd.evaluation.protocols.base import ProtocolCard
from svd.evaluation.protocols.comparison import VideoComparison
from svd.evaluation.protocols.framing import AsSampled, Square

RECONSTRUCTION: Final = VideoComparison(
    card=ProtocolCard(
        name="k600-recon",
        title="Kinetics-600, reconstruction by the autoencoder",
        question="How much of a video does the autoencoder lose?",
        dataset=KINETICS600,
        sources=("reconstruction", "files", "truth"),
        assumed=("17 frames of 256 px, all validation clips: IV-VAE states none of it",),
    ),
    num_frames=17,
    frame_real=Square(256, antialias=True),
    frame_generated=Square(256, antialias=True),
    paired=True,
    likeness=("psnr", "psnr-clip", "ssim", "lpips"),
)
# Source: Clark et al. 2019 (DVD-GAN) and its successors: 64 px, 5 frames given, 11 predicted.
PREDICTION: Final = VideoComparison(
    card=ProtocolCard(
        name="k600-predict",
        title="Kinetics-600, prediction of 11 frames from 5",
        question="Are predicted frames, as a set, like the frames that really followed?",
        dataset=KINETICS600,
        sources=("files", "truth"),
        published_num=50_000,
        assumed=("the validation list; the line of work samples 50,000 training or test clips",),
    ),
    num_frames=16,
    num_clips=50_000,
    frame_real=Square(64, antialias=True),
    frame_generated=Square(64, antialias=True),
    context=5,
    paired=False,
    likeness=("psnr", "ssim"),
    divisor="n",
)
ONE_FRAME_PREDICTION: Final = VideoComparison(
    card=ProtocolCard(
        name="k600-predict-1f",
        title="Kinetics-600, prediction from one frame (ours)",
        question="Are videos animated from one frame, as a set, like what really followed?",
        dataset=KINETICS600,
        sources=("image-to-video", "files", "truth"),
        assumed=("one frame is given where the published task gives five",),
    ),
    num_frames=16,
    num_clips=50_000,
    frame_real=AsSampled(64, 64),
    frame_generated=AsSampled(64, 64),
    context=1,
    paired=False,
    likeness=("psnr", "ssim"),
    divisor="n",
)
