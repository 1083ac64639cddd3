"""UCF-101: the zero-shot text-to-video FVD of the paper, and generation as others measure it."""

from typing import Final

from svd.evaluation.datasets.ucf101 import NUM_CLIPS, UCF101
from svd.evaluation.protocols.base import ProtocolCard
from svd.evaluation.protocols.comparison import VideoComparison
from svd.evaluation.protocols.framing import AsSampled, ShrinkThenCrop

# Source: Blattmann et al. 2023, appendix E.4. Prompts are raw class names, as many samples of a
# class as UCF-101 has clips of it, 320x576 shrunk to 240x432 and cropped to 240x320.
TEXT_TO_VIDEO: Final = VideoComparison(
    card=ProtocolCard(
        name="ucf101-t2v",
        title="UCF-101, zero-shot text to video, FVD over all 13,320 clips",
        question="Do videos sampled from class names look and move, as a set, like UCF-101?",
        dataset=UCF101,
        sources=("text-to-video", "files", "truth"),
        published_num=NUM_CLIPS,
        assumed=(
            "each real window is the first 16 frames; the paper does not say which",
            "frames are stretched to 224 px without antialiasing, as its I3D is believed to do",
        ),
        sampling={
            "num_frames": 16,
            "height": 320,
            "width": 576,
            "fps": 25,
            "guidance.kind": "constant",
            "guidance.max_scale": 7.0,
        },
    ),
    num_frames=16,
    frame_generated=ShrinkThenCrop(source=(320, 576), height=240, width=432, crop_width=320),
    paired=False,
    divisor="n",
)
# Source: StyleGAN-V's fvd2048_16f: random windows of 16 frames, short videos left out.
GENERATION: Final = VideoComparison(
    card=ProtocolCard(
        name="ucf101-generation",
        title="UCF-101, generation, FVD of 2,048 against 2,048, and inception score",
        question="Do generated videos look and move, as a set, like UCF-101?",
        dataset=UCF101,
        sources=("image-to-video", "text-to-video", "files", "truth"),
        published_num=2048,
        assumed=("models of this row were trained on UCF-101; ours see a first frame or a class",),
        sampling={"num_frames": 16},
    ),
    num_frames=16,
    num_clips=2048,
    window="random",
    frame_real=AsSampled(128, 128),
    frame_generated=AsSampled(128, 128),
    paired=False,
    divisor="n",
    inception_score=True,
)
