"""Video files of every sort, made on the fly; no binaries in git."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import settings

from svd.media.encode import write_video

settings.register_profile("svd", deadline=None)  # a busy machine is no failure
settings.load_profile("svd")


class MediaFiles:
    """Makes media files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def frames(self, num_frames: int, *, width: int = 96, height: int = 64) -> np.ndarray:
        """Return uint8 (t, H, W, 3): a gradient that drifts, with a bright square top left."""
        y, x = np.mgrid[0:height, 0:width]
        pictures = np.stack(
            [
                np.stack([(x * 2 + 5 * i) % 256, (y * 3) % 256, (x + y + 9 * i) % 256], axis=-1)
                for i in range(num_frames)
            ]
        ).astype(np.uint8)
        pictures[:, : height // 4, : width // 4] = 255
        return pictures

    def video(
        self,
        name: str = "video.mp4",
        *,
        num_frames: int = 12,
        fps: Fraction | int = 24,
        width: int = 96,
        height: int = 64,
        gop: int = 250,
    ) -> Path:
        path = self.folder / name
        frames = self.frames(num_frames, width=width, height=height)
        write_video(path, frames, fps, gop=gop)
        return path

    def timed(
        self,
        name: str,
        pts: Sequence[int],
        *,
        time_base: Fraction = Fraction(1, 1000),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rotation: float | None = None,
        options: dict[str, str] | None = None,
        muxer: dict[str, str] | None = None,
        with_audio: bool = False,
    ) -> Path:
        """Encode one frame per time, without B-frames unless the options ask for them."""
        path = self.folder / name
        frames = self.frames(len(pts))
        with av.open(path, "w", options=muxer or {}) as container:
            stream = container.add_stream(codec, rate=25, options={"bf": "0"} | (options or {}))
            stream.width, stream.height = frames.shape[2], frames.shape[1]
            stream.pix_fmt, stream.time_base = pix_fmt, time_base
            stream.codec_context.time_base = time_base
            if rotation is not None:
                stream.set_display_rotation(rotation)
            sound = container.add_stream("aac", rate=8000) if with_audio else None
            for time, pixels in zip(pts, frames, strict=True):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = time, time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound is not None:
                self._hum(container, sound)
        return path

    def audio_only(self, name: str = "sound.mp4") -> Path:
        path = self.folder / name
        with av.open(path, "w") as container:
            self._hum(container, container.add_stream("aac", rate=8000))
        return path

    def image(self, name: str, fmt: str) -> Path:
        path = self.folder / name
        done, data = cv2.imencode(fmt, self.frames(1)[0])
        assert done
        path.write_bytes(data.tobytes())
        return path

    def bytes_of(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    @staticmethod
    def _hum(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
        tone = np.sin(np.arange(8000, dtype=np.float32) / 9)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def media(tmp_path: Path) -> MediaFiles:
    folder = tmp_path / "media"
    folder.mkdir()
    return MediaFiles(folder)
