"""What one decode pass keeps of a video: numbers per frame, flow per pair of sampled frames."""

import io
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float16, Float32, Int64, UInt8

from svd.atomic import new_file

THUMB_HEIGHT = 18  # of the luma thumbnails kept of every frame, whatever the video's aspect
THUMB_WIDTH = 32


@dataclass(frozen=True, slots=True)
class FrameTrack:
    """Measurements of consecutive frames, named by their pts.

    A score compares two frames and carries the pts of the later one, so the tracks of two
    neighbouring segments overlap by the first samples of the second: `join_tracks` drops those.
    """

    pts: Int64[np.ndarray, " n"]  # ticks, rising
    mean_rgb: Float32[np.ndarray, " n"]  # 0..255, mean over the picture and the three channels
    contrast: Float32[np.ndarray, " n"]  # standard deviation of luma over the picture
    thumbs: UInt8[np.ndarray, "n 18 32"]  # luma
    native_pts: Int64[np.ndarray, " a"]
    native_score: Float32[np.ndarray, " a"]  # content score against the frame before, 0..255
    mid_pts: Int64[np.ndarray, " b"]
    mid_score: Float32[np.ndarray, " b"]  # against the sample before, at the middle rate
    low_pts: Int64[np.ndarray, " c"]
    low_score: Float32[np.ndarray, " c"]
    flow_pts: Int64[np.ndarray, "p 2"]  # the two frames of each pair
    dis_px: Float32[np.ndarray, " p"]  # mean magnitude, px of the flow picture per pair
    farneback_px: Float32[np.ndarray, " p"]  # mean magnitude, px of the map-sized picture
    dis_map: Float16[np.ndarray, "p h w 2"]  # (right, down), px of the flow picture
    farneback_map: Float16[np.ndarray, "p h w 2"]

    def frame_numbers(self, pts: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Return the 0-based numbers of frames given by their pts."""
        return np.searchsorted(self.pts, pts).astype(np.int64)

    def dump(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def load(cls, arrays: "np.lib.npyio.NpzFile | dict[str, np.ndarray]") -> Self:
        """Return the track of arrays by name; other names are ignored."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class BankFrame:
    """An encoded picture of one frame."""

    pts: int
    jpeg: bytes
    still: bytes | None  # the same frame, larger; None for most


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """What a decode pass keeps of one segment of a video."""

    track: FrameTrack
    frames: tuple[BankFrame, ...]
    num_bad_packets: int
    num_damaged_frames: int
    message: str  # the decoder's first complaint; "" if it had none


def join_tracks(tracks: list[FrameTrack]) -> FrameTrack:
    """Join the tracks of a video's consecutive segments into the track of one unbroken pass."""
    if len(tracks) == 1:
        return tracks[0]
    joined = {
        name: np.concatenate([getattr(track, name) for track in tracks])
        for name in FrameTrack.__dataclass_fields__
    }
    for scores in ("native", "mid", "low"):
        keep = _first_of_each(joined[f"{scores}_pts"])
        joined[f"{scores}_pts"] = joined[f"{scores}_pts"][keep]
        joined[f"{scores}_score"] = joined[f"{scores}_score"][keep]
    return FrameTrack(**joined)


def _first_of_each(pts: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
    return np.unique(pts, return_index=True)[1]


def save_segment(path: Path, scan: SegmentScan) -> None:
    """Write a segment atomically: its existence is its done-mark."""
    pictures = [frame.jpeg for frame in scan.frames] + [frame.still or b"" for frame in scan.frames]
    arrays = scan.track.dump() | {
        "bank_pts": np.array([frame.pts for frame in scan.frames], dtype=np.int64),
        "picture_sizes": np.array([len(data) for data in pictures], dtype=np.int64),
        "picture_bytes": np.frombuffer(b"".join(pictures), dtype=np.uint8),
        "counts": np.array([scan.num_bad_packets, scan.num_damaged_frames], dtype=np.int64),
        "message": np.array(scan.message),
    }
    write_arrays(path, arrays)


def load_segment(path: Path) -> SegmentScan:
    """Read what `save_segment` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        stream = io.BytesIO(arrays["picture_bytes"].tobytes())
        pictures = [stream.read(size) for size in arrays["picture_sizes"].tolist()]
        all_pts = arrays["bank_pts"].tolist()
        frames = tuple(
            BankFrame(pts=pts, jpeg=jpeg, still=still or None)
            for pts, jpeg, still in zip(
                all_pts, pictures[: len(all_pts)], pictures[len(all_pts) :], strict=True
            )
        )
        bad, damaged = arrays["counts"].tolist()
        return SegmentScan(
            track=FrameTrack.load(arrays),
            frames=frames,
            num_bad_packets=bad,
            num_damaged_frames=damaged,
            message=str(arrays["message"]),
        )


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as npz, atomically; equal arrays give equal bytes."""
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # stub takes allow_pickle for a name


def sample_cell(pts: int, *, start_pts: int, time_base: Fraction, rate_hz: int) -> int:
    """Return the number of the 1/rate_hz long cell of time in which a frame is shown.

    The first frame in each cell is the sample: frames are chosen by time, not by count.
    """
    return (pts - start_pts) * time_base.numerator * rate_hz // time_base.denominator
