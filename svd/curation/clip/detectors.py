"""PySceneDetect's detectors, fed with the scores that the one decode pass has kept."""

from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int64
from scenedetect import FrameTimecode, __version__
from scenedetect.detectors import AdaptiveDetector, ContentDetector, ThresholdDetector

_NO_PICTURE = np.zeros((1, 1, 3), dtype=np.uint8)  # the detectors below do not look at it


class _ScoredContent(ContentDetector):  # type: ignore[misc]  # the library has no types
    """ContentDetector that is given each frame's score instead of computing it."""

    next_score = 0.0

    def _calculate_frame_score(
        self,
        timecode: FrameTimecode,  # noqa: ARG002  # the library's signature
        frame_img: np.ndarray,  # noqa: ARG002
    ) -> float:
        return self.next_score


class _ScoredAdaptive(AdaptiveDetector):  # type: ignore[misc]  # the library has no types
    """AdaptiveDetector that is given each frame's score instead of computing it."""

    next_score = 0.0

    def _calculate_frame_score(
        self,
        timecode: FrameTimecode,  # noqa: ARG002  # the library's signature
        frame_img: np.ndarray,  # noqa: ARG002
    ) -> float:
        return self.next_score


def adaptive_hits(
    frames: Int64[np.ndarray, " n"],
    scores: Float32[np.ndarray, " n"],
    *,
    threshold: float,
    window: int,
    min_score: float,
    min_shot_frames: int,
) -> list[int]:
    """Return the numbers of the frames at which AdaptiveDetector sees a cut.

    Args:
        frames: Frame numbers, rising.
        scores: Content score of each, 0..255.
        threshold: Least ratio of a score to the mean of its neighbours.
        window: Neighbours on each side.
        min_score: Least score.
        min_shot_frames: Least distance between two cuts; keep small, it hides second cuts.
    """
    detector = _ScoredAdaptive(
        adaptive_threshold=threshold,
        min_scene_len=min_shot_frames,
        window_width=window,
        min_content_val=min_score,
    )
    return _feed(detector, frames, scores)


def content_hits(
    frames: Int64[np.ndarray, " n"], scores: Float32[np.ndarray, " n"], *, threshold: float
) -> list[int]:
    """Return the numbers of the frames at which ContentDetector sees a cut, every one of them."""
    return _feed(_ScoredContent(threshold=threshold, min_scene_len=0), frames, scores)


def threshold_hits(mean_rgb: Float32[np.ndarray, " n"], *, threshold: float) -> list[int]:
    """Return where ThresholdDetector splits fades through black: in the middle of the dark.

    Args:
        mean_rgb: Mean of all three channels, per frame.
        threshold: Level below which a frame is black, 0..255.
    """
    detector = ThresholdDetector(threshold=threshold, min_scene_len=15, add_final_scene=True)
    hits: list[int] = []
    for number, value in enumerate(mean_rgb.tolist()):
        picture = np.full((1, 1, 3), value, dtype=np.float64)
        hits += [cut.frame_num for cut in detector.process_frame(_timecode(number), picture)]
    hits += [cut.frame_num for cut in detector.post_process(_timecode(len(mean_rgb) - 1))]
    return hits


def detector_version() -> str:
    """Return the version that stands beside each score."""
    return f"scenedetect-{__version__}"


def _feed(
    detector: _ScoredContent | _ScoredAdaptive,
    frames: Int64[np.ndarray, " n"],
    scores: Float32[np.ndarray, " n"],
) -> list[int]:
    hits: list[int] = []
    for number, score in zip(frames.tolist(), scores.tolist(), strict=True):
        detector.next_score = score
        hits += [cut.frame_num for cut in detector.process_frame(_timecode(number), _NO_PICTURE)]
    return hits


def _timecode(frame_number: int) -> FrameTimecode:
    return FrameTimecode(frame_number, fps=Fraction(1))  # one tick per frame: numbers stay numbers
