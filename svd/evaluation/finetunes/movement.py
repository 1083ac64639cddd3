"""What moves in a sampled video: flow between frames half a second apart, and the camera in it."""

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from svd.curation.camera_motion.classify import read_camera
from svd.curation.clip.flow import FlowMeter, PairFlow
from svd.types.camera import CameraReading

_SHORT_SIDE_PX = 128  # of the picture that flow is computed on, if the video is as large
_MAP_SIDE_PX = 16


def half_second_flows(frames: UInt8[Tensor, "t H W 3"], *, fps: float) -> list[PairFlow]:
    """Return the flow of every pair of frames half a second apart.

    A video shorter than that is measured between its ends.
    """
    lag = max(1, min(round(fps / 2), len(frames) - 1))
    pictures = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames.numpy()]
    height, width = frames.shape[1:3]
    flows = []
    for first, second in zip(pictures[:-lag], pictures[lag:], strict=True):
        meter = FlowMeter(width, height, flow_side_px=_SHORT_SIDE_PX, map_side_px=_MAP_SIDE_PX)
        meter.add(first)
        flow = meter.add(second)
        if flow is not None:
            flows.append(flow)
    return flows


def motion_px(frames: UInt8[Tensor, "t H W 3"], *, fps: float) -> float:
    """Return the mean length of the flow, in px of a picture whose shorter side is 128."""
    side = min(_SHORT_SIDE_PX, *frames.shape[1:3])
    flows = half_second_flows(frames, fps=fps)
    mean_px = float(np.mean([flow.dis_px for flow in flows]))
    return mean_px * _SHORT_SIDE_PX / float(side)


def camera_of(frames: UInt8[Tensor, "t H W 3"], *, fps: float) -> CameraReading:
    """Return the mean camera motion of a video of two frames or more.

    Raises:
        ValueError: It has fewer.
    """
    side = min(_SHORT_SIDE_PX, *frames.shape[1:3])
    maps = [np.asarray(flow.dis_map) for flow in half_second_flows(frames, fps=fps)]
    reading = read_camera(maps, short_side_px=side)
    if reading is None:
        raise ValueError("a video of one frame has no camera motion")
    return reading
