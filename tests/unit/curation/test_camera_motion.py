"""The class of the camera is found where it is known: on rendered motion, and by the stage."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from filming import HEIGHT, WIDTH, film, raw_folder, shot, texture
from hypothesis import given, settings
from hypothesis import strategies as st

from svd.config.camera_motion import CameraMotionConfig
from svd.config.curation import BankConfig, ClipConfig, CutConfig
from svd.config.engine import EngineConfig
from svd.curation.camera_motion import stage
from svd.curation.camera_motion.classify import class_shares, classify, read_camera
from svd.curation.clip.flow import FlowMeter
from svd.curation.clip.stage import make_clips
from svd.errors import MissingInputError
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.camera import CameraClass, CameraLabel, CameraMotionReport, CameraReading

CONFIG = CameraMotionConfig()
BANK = BankConfig(short_side_px=128, still_short_side_px=180)


def render(
    seed: int, num: int, *, dx: float = 0, dy: float = 0, zoom: float = 1, turn_deg: float = 0
) -> list[np.ndarray]:
    """Frames of a picture that is shifted, magnified and turned by so much from one to the next."""
    wide = texture(seed, 3 * WIDTH, 3 * HEIGHT)
    centre = (1.5 * WIDTH, 1.5 * HEIGHT)
    frames = []
    for index in range(num):
        matrix = cv2.getRotationMatrix2D(centre, -turn_deg * index, zoom**index)
        matrix[:, 2] += (dx * index - WIDTH, dy * index - HEIGHT)
        frames.append(cv2.warpAffine(wide, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR))
    return frames


def read(frames: list[np.ndarray]) -> CameraReading:
    meter = FlowMeter(WIDTH, HEIGHT, flow_side_px=128, map_side_px=16)
    flows = [meter.add(frame) for frame in frames]
    reading = read_camera([flow.dis_map for flow in flows if flow is not None], short_side_px=128)
    assert reading is not None
    return reading


MOTIONS: list[tuple[str, dict[str, float], CameraClass]] = [
    ("still", {}, "static"),
    ("pan-right", {"dx": -12}, "horizontal"),
    ("pan-left-slowly", {"dx": 2}, "horizontal"),
    ("zoom-in", {"zoom": 1.06}, "zoom"),
    ("zoom-out", {"zoom": 0.97}, "zoom"),
    ("roll", {"turn_deg": 4}, "rotation"),
    ("roll-back", {"turn_deg": -2}, "rotation"),
    ("tilt", {"dy": 8}, "other"),
    ("diagonal", {"dx": 6, "dy": 6}, "other"),
    ("pan-and-zoom", {"dx": 5, "zoom": 1.06}, "other"),
]


@pytest.mark.parametrize(
    ("motion", "expected"), [m[1:] for m in MOTIONS], ids=[m[0] for m in MOTIONS]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_rendered_motion_gets_its_class(
    motion: dict[str, float], expected: CameraClass, seed: int
) -> None:
    assert classify(read(render(seed, 5, **motion)), CONFIG) == expected


def test_a_moving_object_before_a_still_camera_is_static() -> None:
    frames = render(1, 5)
    for index, frame in enumerate(frames):
        cv2.circle(frame, (60 + 18 * index, 90), 35, (30, 200, 240), -1)
    assert classify(read(frames), CONFIG) == "static"


def test_shaking_is_no_pan() -> None:
    still = render(1, 1)[0]
    moved = [np.roll(still, shift, axis=1) for shift in (0, 9, 0, 9, 0, 9)]
    assert classify(read(moved), CONFIG) == "other"


def test_no_flow_is_no_class() -> None:
    assert read_camera([], short_side_px=128) is None
    assert classify(None, CONFIG) == "other"


moves = st.floats(-30, 30)


@settings(max_examples=80, deadline=None)
@given(moves, moves, moves, moves)
def test_shares_add_up_and_the_class_does_not_hang_on_the_direction(
    x: float, y: float, zoom: float, turn: float
) -> None:
    def reading(sign: int) -> CameraReading:
        return CameraReading(
            shift_x=sign * x,
            shift_y=sign * y,
            zoom=sign * zoom,
            rotation=sign * turn,
            speed=float(np.linalg.norm([x, y, zoom, turn])),
            explained=1.0,
            num_pairs=3,
        )

    assert classify(reading(1), CONFIG) == classify(reading(-1), CONFIG)
    if np.linalg.norm([x, y, zoom, turn]) > 1e-3:
        assert sum(class_shares(reading(1)).values()) == pytest.approx(1)


def test_the_stage_labels_every_clip_and_draws_a_sheet_per_class(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    params = SimpleNamespace(camera_motion=CONFIG, clip=SimpleNamespace(bank=BANK))
    with pytest.raises(MissingInputError, match="run `svd clip`"):
        stage.run(params, workspace, tracker=NullTracker())
    sources = tmp_path / "sources"
    sources.mkdir()
    videos = raw_folder(
        tmp_path,
        [
            film(sources / "pan.mp4", shot(1, 60, dx=2), gop=24),
            film(sources / "still.mp4", shot(2, 60), gop=24),
        ],
    )
    make_clips(
        ClipConfig(segment_s=2.0, cuts=CutConfig(), bank=BANK, min_clip_s=0.8, max_clip_s=3.0),
        engine=EngineConfig(num_workers=1, timeout_s=120.0, max_attempts=1),
        raw=workspace.raw,
        out=workspace.clips,
        state=tmp_path / ".runs" / "clip",
    )
    _put_truth(workspace, videos["pan.mp4"].video_id)
    report = stage.run(params, workspace, tracker=NullTracker())
    labels = list(read_records(workspace.camera_motion / "labels.jsonl", CameraLabel))
    assert sorted(label.camera for label in labels) == ["horizontal", "static"]
    assert report.summary["accuracy on synthetic clips"] == 1.0
    text = (workspace.camera_motion / "report.json").read_text()
    confusion = CameraMotionReport.parse(text, origin="report.json").confusion
    assert confusion is not None
    assert confusion.counts == {"horizontal": {"horizontal": 1}}
    pictures = workspace.camera_motion / "pictures"
    assert sorted(path.name for path in pictures.iterdir()) == ["horizontal.jpg", "static.jpg"]
    assert cv2.imread(str(pictures / "static.jpg")) is not None


def _put_truth(workspace: Workspace, video_id: str) -> None:
    shot_truth = {
        "start_frame": 0,
        "stop_frame": 60,
        "picture": "p",
        "camera": "horizontal",
        "dx": 2.0,
        "dy": 0.0,
        "zoom": 1.0,
        "object_dx": 0.0,
        "object_dy": 0.0,
        "object_area_ratio": 0.0,
        "mean_motion_px": 2.0,
        "text_area_ratio": 0.0,
    }
    truth = {
        "video_id": video_id,
        "name": "pan",
        "width": WIDTH,
        "height": HEIGHT,
        "fps": "24/1",
        "num_frames": 60,
        "cuts": [],
        "shots": [shot_truth],
        "duplicate_of": None,
        "duplicate_kind": None,
    }
    path = workspace.raw / "truth" / f"{video_id}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(truth))
