from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from svd.errors import ConfigError
from svd.media.encode import write_video


def read(path: Path) -> tuple[np.ndarray, list[int], list[int], Fraction]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        keys = [index for index, frame in enumerate(frames) if frame.key_frame]
        pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        return pixels, [frame.pts for frame in frames], keys, stream.time_base


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_what_is_written_is_read_back(media, suffix: str) -> None:
    frames = media.frames(10)
    path = media.folder / f"v{suffix}"
    assert write_video(path, frames, 25, crf=10) == 10
    pixels, _, _, _ = read(path)
    assert pixels.shape == frames.shape
    assert cv2.PSNR(pixels, frames) > 28


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_equal_input_gives_equal_bytes(media, suffix: str) -> None:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (260, 400, 3), np.uint8), (0, 0), 2)
    frames = np.stack([noise[i : i + 180, 2 * i : 2 * i + 320] for i in range(24)])
    versions = set()
    for _ in range(5):  # heap contents vary between calls; the bytes must not
        path = media.folder / f"v{suffix}"
        write_video(path, frames, 24, gop=12)
        versions.add(path.read_bytes())
    assert len(versions) == 1


@pytest.mark.parametrize("fps", [24, Fraction(30000, 1001), Fraction(25, 2)], ids=str)
def test_times_are_exact_multiples_of_the_frame_duration(media, fps: Fraction | int) -> None:
    path = media.folder / "v.mp4"
    write_video(path, media.frames(20), fps)
    _, pts, _, time_base = read(path)
    assert [time * time_base for time in pts] == [index / Fraction(fps) for index in range(20)]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_keyframes_stand_where_they_are_asked_for(media, suffix: str) -> None:
    path = media.folder / f"v{suffix}"
    write_video(path, media.frames(30), 24, gop=250, keyframes={7, 20}, scenecut=False)
    assert read(path)[2] == [0, 7, 20]


def test_a_generator_of_frames_will_do(media) -> None:
    path = media.folder / "v.mp4"
    assert write_video(path, (frame for frame in media.frames(5)), 24) == 5


def test_colours_survive_in_readers_that_ignore_the_tag(media) -> None:
    flat = np.full((4, 64, 96, 3), (200, 40, 90), np.uint8)
    path = media.folder / "v.mp4"
    write_video(path, flat, 24, crf=5)
    done, picture = cv2.VideoCapture(str(path)).read()
    assert done
    assert np.abs(picture[..., ::-1].astype(int) - flat[0]).max() <= 3


@pytest.mark.parametrize(
    ("name", "frames", "words"),
    [
        ("v.xyz", np.zeros((2, 64, 64, 3), np.uint8), "cannot write '.xyz'"),
        ("v.mp4", np.zeros((0, 64, 64, 3), np.uint8), "no frames"),
        ("v.mp4", np.zeros((2, 63, 64, 3), np.uint8), "even sides"),
        ("v.mp4", [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 66, 3), np.uint8)], "shape"),
    ],
    ids=["suffix", "empty", "odd", "unlike"],
)
def test_what_cannot_be_written_is_one_sentence(tmp_path, name, frames, words) -> None:
    with pytest.raises(ConfigError, match=words):
        write_video(tmp_path / name, frames, 24)
    assert not (tmp_path / name).exists()
