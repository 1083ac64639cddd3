"""The stage camera-motion: every clip gets a class; contact sheets and accuracy show how well."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from svd.atomic import new_folder
from svd.config.camera_motion import CameraMotionConfig
from svd.curation.camera_motion.accuracy import measure_confusion, read_truth
from svd.curation.camera_motion.classify import classify, read_camera
from svd.curation.clip.bank import FrameBank
from svd.curation.filter.pictures import Tile, draw_sheet
from svd.errors import MissingInputError
from svd.runtime.progress import track
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport, Value
from svd.types.base import read_records, write_records
from svd.types.camera import (
    CAMERA_CLASSES,
    CameraLabel,
    CameraMotionReport,
    CameraReading,
)
from svd.types.video import Clip

if TYPE_CHECKING:
    from svd.config.params import Params


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Classify every clip by its camera motion.

    Raises:
        MissingInputError: There are no clips.
    """
    index = workspace.clips / "index.jsonl"
    if not index.is_file():
        raise MissingInputError(f"{index} is not there: run `svd clip` to make it")
    clips = {clip.clip_id: clip for clip in read_records(index, Clip)}
    labels = label_clips(
        clips.values(),
        workspace.clips / "bank",
        params.camera_motion,
        short_side_px=params.clip.bank.flow_short_side_px,
    )
    truth = read_truth(workspace.raw / "truth")
    found = Counter(label.camera for label in labels)
    report = CameraMotionReport(
        num_clips={name: found[name] for name in CAMERA_CLASSES},
        confusion=measure_confusion(clips, labels, truth),
    )
    out = workspace.camera_motion
    with new_folder(out) as partial:
        write_records(partial / "labels.jsonl", labels)
        (partial / "report.json").write_text(report.canonical_json(), encoding="utf-8")
        banks = workspace.clips / "bank"
        _draw_sheets(partial / "pictures", clips, labels, banks, params.camera_motion)
    summary = _summary(report)
    tracker.summarize({f"camera-motion/{name}": value for name, value in summary.items()})
    return StageReport(
        stage="camera-motion",
        summary=summary,
        outputs=("data/camera-motion/report.json", "data/camera-motion/pictures"),
    )


def label_clips(
    clips: Iterable[Clip], banks: Path, config: CameraMotionConfig, *, short_side_px: float
) -> list[CameraLabel]:
    """Return each clip's label, by clip_id, from the flow that the bank of its video holds."""
    by_video: dict[str, list[Clip]] = {}
    for clip in clips:
        by_video.setdefault(clip.span.video_id, []).append(clip)
    shown = track(
        sorted(by_video.items()),
        total=len(by_video),
        description="reading the camera",
        unit="videos",
    )
    labels = []
    for video_id, members in shown:
        bank = FrameBank(banks / video_id)
        for clip in members:
            flow = bank.flow_within(clip.span.start_frame, clip.span.stop_frame)
            reading = read_camera(list(flow.dis_map), short_side_px=short_side_px)
            camera = classify(reading, config)
            labels.append(CameraLabel(clip_id=clip.clip_id, camera=camera, reading=reading))
    return sorted(labels, key=lambda label: label.clip_id)


def _draw_sheets(
    folder: Path,
    clips: dict[str, Clip],
    labels: Sequence[CameraLabel],
    banks: Path,
    config: CameraMotionConfig,
) -> None:
    """Draw the first and last sampled frame of some clips of each class, side by side."""
    for name in CAMERA_CLASSES:
        chosen = [label for label in labels if label.camera == name and label.reading is not None]
        chosen = chosen[:: max(1, len(chosen) // config.num_examples)][: config.num_examples]
        opened = {clips[label.clip_id].span.video_id for label in chosen}
        by_video = {video_id: FrameBank(banks / video_id) for video_id in opened}
        tiles = [tile for label in chosen for tile in _tiles(clips[label.clip_id], label, by_video)]
        if tiles:
            draw_sheet(folder / f"{name}.jpg", tiles, by_video)


def _tiles(clip: Clip, label: CameraLabel, banks: dict[str, FrameBank]) -> Iterator[Tile]:
    span = clip.span
    frames = banks[span.video_id].frames_within(span.start_frame, span.stop_frame)
    if label.reading is None or not frames:
        return
    for frame, line in ((frames[0], clip.clip_id[:12]), (frames[-1], _describe(label.reading))):
        yield Tile(video_id=span.video_id, frame=frame, lines=(line,))


def _describe(reading: CameraReading) -> str:
    return (
        f"x {reading.shift_x:+.1f} y {reading.shift_y:+.1f} zoom {reading.zoom:+.1f} "
        f"turn {reading.rotation:+.1f}"
    )


def _summary(report: CameraMotionReport) -> dict[str, Value]:
    summary: dict[str, Value] = {"clips": sum(report.num_clips.values())}
    summary.update(report.num_clips.items())
    if report.confusion is not None:
        summary["synthetic clips"] = report.confusion.num_clips
        summary["accuracy on synthetic clips"] = round(report.confusion.accuracy, 3)
    return summary
