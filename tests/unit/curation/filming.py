"""Short films for tests: textured shots that pan, joined by cuts, fades and dissolves."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from svd.media.encode import write_video
from svd.media.probe import probe_video
from svd.types.base import write_records
from svd.types.video import RawVideo

WIDTH, HEIGHT = 320, 180


def texture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a colourful picture, uint8 (H, W, 3), with structure at several scales."""
    generator = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), dtype=np.float32)
    for cell in (8, 24, 80):
        small = generator.uniform(0, 1, (height // cell + 2, width // cell + 2, 3))
        picture += cell * cv2.resize(small.astype(np.float32), (width, height))
    picture -= picture.min()
    return (picture / picture.max() * 255).astype(np.uint8)


def shot(
    seed: int, num_frames: int, *, dx: float = 0.0, width: int = WIDTH, height: int = HEIGHT
) -> np.ndarray:
    """Return frames (t, H, W, 3) whose content moves to the right by dx px per frame."""
    margin = int(abs(dx) * num_frames) + 8
    wide = texture(seed, width + 2 * margin, height)
    frames = []
    for index in range(num_frames):
        shift = np.float32([[1, 0, dx * index - margin], [0, 1, 0]])
        frames.append(cv2.warpAffine(wide, shift, (width, height), flags=cv2.INTER_LINEAR))
    return np.stack(frames)


def mixed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the dissolve over as many frames as both have."""
    shares = ((np.arange(len(first)) + 1) / (len(first) + 1))[:, None, None, None]
    return np.round((1 - shares) * first + shares * second).astype(np.uint8)


def dissolve(first: np.ndarray, second: np.ndarray, num_frames: int) -> np.ndarray:
    """Return both shots with the end of one dissolving into the start of the other."""
    between = mixed(first[-num_frames:], second[:num_frames])
    return np.concatenate([first[:-num_frames], between, second[num_frames:]])


def fade_through_black(first: np.ndarray, second: np.ndarray, num_frames: int) -> np.ndarray:
    """Return both shots, the first faded out over and the second in over so many frames."""
    out = mixed(first[-num_frames:], np.zeros_like(first[-num_frames:]))
    into = mixed(np.zeros_like(second[:num_frames]), second[:num_frames])
    return np.concatenate([first[:-num_frames], out, into, second[num_frames:]])


def raw_folder(root: Path, files: Sequence[Path]) -> dict[str, RawVideo]:
    """Write data/raw as ingest does, for these files; return the records by file name."""
    folder = root / "data" / "raw"
    (folder / "videos").mkdir(parents=True)
    records = {}
    for path in files:
        probed = probe_video(path)
        data = path.read_bytes()
        video_id = hashlib.sha256(data).hexdigest()
        uri = f"videos/{video_id}{probed.suffix}"
        (folder / uri).write_bytes(data)
        records[path.name] = RawVideo(
            video_id=video_id,
            uri=uri,
            origin=path.name,
            licence="CC0-1.0",
            size_bytes=len(data),
            probe=probed.probe,
        )
    write_records(folder / "index.jsonl", records.values())
    return records


def film(path: Path, *parts: np.ndarray, fps: Fraction | int = 24, **options: object) -> Path:
    """Write parts one after the other as one video."""
    write_video(path, np.concatenate(parts), fps, **options)
    return path
