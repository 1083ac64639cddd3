"""How much moves in a clip: mean optical flow between frames half a second apart.

Source: SVD, section 3.1 and appendix C.3: dense flow at 2 frames per second, averaged over time and
space. The paper's instrument is Farneback's; its published values fit frames of 16 px.
"""

import numpy as np

from svd.config.curation import BankConfig
from svd.curation.annotate.scoring import ClipView, Measured
from svd.curation.clip.flow import DIS_VERSION, FARNEBACK_VERSION
from svd.types.annotation import Scorer


class MotionAnnotator:
    """Scores dis_px and farneback_px: mean magnitudes, each in px of its own small picture."""

    def __init__(self, bank: BankConfig) -> None:
        self._bank = bank

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings."""
        return Scorer(
            name="motion",
            version=f"dis {DIS_VERSION}, farneback {FARNEBACK_VERSION}",
            settings={
                "rate_hz": self._bank.rate_hz,
                "dis_short_side_px": self._bank.flow_short_side_px,
                "farneback_short_side_px": self._bank.map_short_side_px,
            },
        )

    def measure(self, view: ClipView) -> Measured:
        """Return the clip's mean flow magnitudes, and the most still pair's."""
        flow = view.flow
        if not len(flow.dis_px):
            reason = "fewer than two sampled frames"
            return Measured(missing={"dis_px": reason, "farneback_px": reason})
        return Measured(
            scores={
                "dis_px": float(np.mean(flow.dis_px, dtype=np.float64)),
                "dis_px_min": float(flow.dis_px.min()),
                "farneback_px": float(np.mean(flow.farneback_px, dtype=np.float64)),
            }
        )
