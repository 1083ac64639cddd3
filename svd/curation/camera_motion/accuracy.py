"""How well the classes are found, on videos of our own whose camera motion is known."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from svd.types.camera import CameraClass, CameraLabel, Confusion
from svd.types.truth import CameraMotion, TrueShot, VideoTruth
from svd.types.video import Clip

_CLASS_OF: Final[dict[CameraMotion, CameraClass]] = {
    "static": "static",
    "horizontal": "horizontal",
    "vertical": "other",
    "zoom-in": "zoom",
    "zoom-out": "zoom",
}


def read_truth(folder: Path) -> dict[str, VideoTruth]:
    """Return what is known of each synthetic video, by video_id; empty where there is none."""
    texts = ((path, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    found = (VideoTruth.parse(text, origin=str(path)) for path, text in texts)
    return {truth.video_id: truth for truth in found}


def measure_confusion(
    clips: Mapping[str, Clip], labels: Iterable[CameraLabel], truth: Mapping[str, VideoTruth]
) -> Confusion | None:
    """Compare labels with the truth; None if no clip lies within one shot of a known video."""
    counts: dict[CameraClass, dict[CameraClass, int]] = {}
    for label in labels:
        clip = clips[label.clip_id]
        known = truth.get(clip.span.video_id)
        shot = None if known is None else _shot_of(clip, known)
        if shot is None:
            continue
        row = counts.setdefault(_CLASS_OF[shot.camera], {})
        row[label.camera] = row.get(label.camera, 0) + 1
    return Confusion(counts=counts) if counts else None


def _shot_of(clip: Clip, truth: VideoTruth) -> TrueShot | None:
    """Return the shot that a clip lies in; None where it spans several or a transition."""
    span = clip.span
    return next(
        (
            shot
            for shot in truth.shots
            if shot.start_frame <= span.start_frame and span.stop_frame <= shot.stop_frame
        ),
        None,
    )
