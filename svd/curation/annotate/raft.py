"""RAFT flow of chosen clips: accurate, dear, and on larger pictures than the bank holds.

Source: SVD, appendix C.3: for the high-quality stage, RAFT at 800x450 in place of Farneback, the
score computed likewise: the mean magnitude over time and space at 2 frames per second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from jaxtyping import Float32

from svd.config.curation import BankConfig, RaftConfig
from svd.curation.annotate.camera import fit_camera
from svd.curation.annotate.network_file import load_published
from svd.curation.annotate.scoring import Measured
from svd.curation.annotate.weights import Weights
from svd.curation.clip.flow import mean_magnitude
from svd.curation.clip.track import sample_cell
from svd.media.decode import PictureMaker, decode_frames, fit_short_side, index_packets
from svd.types.annotation import Scorer
from svd.types.video import Clip

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "raft"
SCORES = ("px", "px_min", "camera_px", "residual_px")
_STEP_PX = 8  # sides of what RAFT sees are multiples of it


@dataclass(frozen=True)
class RaftScorer:
    """Scores px, px_min, camera_px and residual_px, in px of the picture that RAFT sees.

    The network loads at the first clip.
    """

    config: RaftConfig
    bank: BankConfig
    weights: Weights

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings; the version is the hash of the weights."""
        return Scorer(
            name=NAME,
            version=self.weights.version,
            settings={
                "size": self.config.size,
                "short_side_px": self.config.short_side_px,
                "num_updates": self.config.num_updates,
                "rate_hz": self.bank.rate_hz,
            },
        )

    def measure(self, clip: Clip, file: Path) -> Measured:
        """Decode a clip, and return its mean flow and what of it is the camera's.

        Raises:
            MediaError: The clip cannot be decoded.
        """
        pictures = list(self._sample(clip, file))
        if len(pictures) < 2:
            return Measured(missing=dict.fromkeys(SCORES, "fewer than two sampled frames"))
        magnitudes, speeds, residuals = [], [], []
        pairs = list(pairwise(pictures))
        for first in range(0, len(pairs), self.config.pairs_per_batch):
            for flow in self.flow(pairs[first : first + self.config.pairs_per_batch]):
                magnitudes.append(mean_magnitude(flow))
                small, pixel_px = self._small_map(flow)
                camera = fit_camera(small, pixel_px=pixel_px)
                speeds.append(float(np.hypot(camera.shift_x, camera.shift_y)))
                residuals.append(camera.residual_px)
        return Measured(
            scores={
                "px": float(np.mean(magnitudes)),
                "px_min": min(magnitudes),
                "camera_px": float(np.mean(speeds)),
                "residual_px": float(np.mean(residuals)),
            }
        )

    def flow(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> list[Float32[np.ndarray, "h w 2"]]:
        """Return the flow of each pair of BGR pictures of one size: (right, down), in px."""
        import torch

        height, width = pairs[0][0].shape[:2]
        before, after = (
            torch.stack([_to_input(pair[side]) for pair in pairs]).to(self.config.device)
            for side in (0, 1)
        )
        with torch.inference_mode():
            network = _network(self.config.size, self.weights.path, self.config.device)
            flows = network(before, after, num_flow_updates=self.config.num_updates)[-1]
        cropped = flows[:, :, :height, :width].float().cpu().numpy()
        return list(np.ascontiguousarray(cropped.transpose(0, 2, 3, 1)))

    def _sample(self, clip: Clip, file: Path) -> Iterator[np.ndarray]:
        """Yield the first frame in each cell of time, as the bank does."""
        width, height = fit_short_side(clip.width, clip.height, self.config.short_side_px)
        index = index_packets(file)
        start_pts = int(index.pts[index.is_shown].min())
        make: PictureMaker | None = None
        last = -1
        for pts, frame in decode_frames(file):
            cell = sample_cell(
                pts, start_pts=start_pts, time_base=index.time_base, rate_hz=self.bank.rate_hz
            )
            if cell > last:
                last = cell
                is_turned = (frame.width > frame.height) != (width > height)
                size = (height, width) if is_turned else (width, height)
                make = make or PictureMaker(width=size[0], height=size[1])
                yield make(frame)

    def _small_map(self, flow: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the map that the camera fit sees, and the size of its pixels in px."""
        height, width = flow.shape[:2]
        size = fit_short_side(width, height, self.bank.map_short_side_px)
        small = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
        return small, min(height, width) / min(size)


@cache
def _network(size: Literal["large", "small"], path: Path, device: str) -> "nn.Module":
    """Build the network once per process."""
    import torch
    from torchvision.models import optical_flow

    build = optical_flow.raft_large if size == "large" else optical_flow.raft_small
    torch.set_num_threads(1)  # the other workers have the other cores
    with torch.device("meta"):  # values come from the file
        network = build(weights=None, progress=False)
    return load_published(network, path).to(device)


def _to_input(picture: np.ndarray) -> "torch.Tensor":
    """Return a BGR picture as RAFT's input: RGB in [-1, 1], edges repeated to full steps."""
    import torch

    height, width = picture.shape[:2]
    below, right = -height % _STEP_PX, -width % _STEP_PX
    padded = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)
    rgb = np.ascontiguousarray(padded[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb).float() / 127.5 - 1
