"""The frame bank of a video: what the decode pass kept, so that nothing decodes it again.

bank/<video_id>/frames.tar has the sampled frames as "<frame>.jpg" and some of them larger as
"<frame>.still.jpg"; track.npz has every number and flow map, and where each picture lies in the
tar, so that a reader fetches one picture by one range request.
"""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float16, Float32, Int64

from svd.atomic import new_file
from svd.curation.clip.track import BankFrame, FrameTrack, write_arrays
from svd.errors import IntegrityError, MissingInputError

_FRAMES = "frames.tar"
_TRACK = "track.npz"


def write_bank(folder: Path, track: FrameTrack, frames: Iterable[BankFrame]) -> None:
    """Write a video's bank; equal input gives equal bytes.

    Args:
        folder: The video's own.
        track: The whole video's.
        frames: Its sampled frames, in order; drawn one at a time.
    """
    pts: list[int] = []
    still_pts: list[int] = []
    places: list[tuple[int, int]] = []
    still_places: list[tuple[int, int]] = []
    with (
        new_file(folder / _FRAMES) as partial,
        tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for frame in frames:
            name = f"{int(track.frame_numbers(np.array([frame.pts]))[0]):08d}"
            pts.append(frame.pts)
            places.append(_add(tar, f"{name}.jpg", frame.jpeg))
            if frame.still is not None:
                still_pts.append(frame.pts)
                still_places.append(_add(tar, f"{name}.still.jpg", frame.still))
    flow_frames = track.frame_numbers(track.flow_pts)
    arrays = track.dump() | {
        "bank_frames": track.frame_numbers(np.array(pts, dtype=np.int64)),
        "bank_places": np.array(places, dtype=np.int64).reshape(-1, 2),
        "still_frames": track.frame_numbers(np.array(still_pts, dtype=np.int64)),
        "still_places": np.array(still_places, dtype=np.int64).reshape(-1, 2),
        "flow_frames": flow_frames,
    }
    write_arrays(folder / _TRACK, arrays)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    """Add a member; return (offset of its bytes, their number)."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    offset = tar.offset + tarfile.BLOCKSIZE  # one header block in the USTAR format
    tar.addfile(info, io.BytesIO(data))
    return offset, len(data)


@dataclass(frozen=True, slots=True)
class ClipFlow:
    """Flow between the sampled frames of one clip."""

    dis_px: Float32[np.ndarray, " p"]
    farneback_px: Float32[np.ndarray, " p"]
    dis_map: Float16[np.ndarray, "p h w 2"]
    farneback_map: Float16[np.ndarray, "p h w 2"]
    frames: Int64[np.ndarray, "p 2"]


class FrameBank:
    """Reads one video's bank."""

    def __init__(self, folder: Path) -> None:
        """Open.

        Raises:
            MissingInputError: The folder holds no bank.
        """
        track = folder / _TRACK
        if not track.is_file():
            raise MissingInputError(f"{track} is not there: run `svd clip` to make it")
        self._tar = folder / _FRAMES
        with np.load(track, allow_pickle=False) as arrays:
            self.frames: Int64[np.ndarray, " n"] = arrays["bank_frames"]
            self.stills: Int64[np.ndarray, " m"] = arrays["still_frames"]
            self._places = _by_frame(self.frames, arrays["bank_places"])
            self._still_places = _by_frame(self.stills, arrays["still_places"])
            self._flow = ClipFlow(
                dis_px=arrays["dis_px"],
                farneback_px=arrays["farneback_px"],
                dis_map=arrays["dis_map"],
                farneback_map=arrays["farneback_map"],
                frames=arrays["flow_frames"],
            )

    def frames_within(self, start: int, stop: int) -> list[int]:
        """Return the numbers of the sampled frames in [start, stop)."""
        return _within(self.frames, start, stop)

    def stills_within(self, start: int, stop: int) -> list[int]:
        """Return the numbers of the frames in [start, stop) that are also kept large."""
        return _within(self.stills, start, stop)

    def flow_within(self, start: int, stop: int) -> ClipFlow:
        """Return the flow of the pairs that lie in [start, stop) with both frames."""
        pairs = self._flow.frames
        inside = (pairs[:, 0] >= start) & (pairs[:, 1] < stop)
        return ClipFlow(
            dis_px=self._flow.dis_px[inside],
            farneback_px=self._flow.farneback_px[inside],
            dis_map=self._flow.dis_map[inside],
            farneback_map=self._flow.farneback_map[inside],
            frames=pairs[inside],
        )

    def jpeg(self, frame: int) -> bytes:
        """Return a sampled frame as JPEG."""
        return self._read(*self._places[frame])

    def still_jpeg(self, frame: int) -> bytes:
        """Return a frame's large picture as JPEG."""
        return self._read(*self._still_places[frame])

    def picture(self, frame: int) -> np.ndarray:
        """Return a sampled frame, uint8 (height, width, 3), BGR."""
        return decode_jpeg(self.jpeg(frame), origin=f"{self._tar}: frame {frame}")

    def still(self, frame: int) -> np.ndarray:
        """Return a frame's large picture, uint8 (height, width, 3), BGR."""
        return decode_jpeg(self.still_jpeg(frame), origin=f"{self._tar}: still {frame}")

    def _read(self, offset: int, size: int) -> bytes:
        with self._tar.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _within(frames: Int64[np.ndarray, " n"], start: int, stop: int) -> list[int]:
    return [int(frame) for frame in frames if start <= frame < stop]


def _by_frame(frames: np.ndarray, places: np.ndarray) -> dict[int, tuple[int, int]]:
    rows = zip(frames.tolist(), places.tolist(), strict=True)
    return {frame: (offset, size) for frame, (offset, size) in rows}


def decode_jpeg(data: bytes, *, origin: str) -> np.ndarray:
    """Return a JPEG's picture, uint8 (height, width, 3), BGR.

    Raises:
        IntegrityError: The bytes are no JPEG.
    """
    picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise IntegrityError(f"{origin}: the bytes are no picture")
    result: np.ndarray = picture
    return result
