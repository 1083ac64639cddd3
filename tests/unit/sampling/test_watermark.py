"""The invisible mark: what is written can be read, also by the package it is compatible with."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy import ndarray

from svd.media.encode import write_video
from svd.sampling.watermark import (
    agreement,
    embed_watermark,
    message_bits,
    num_blocks,
    read_watermark,
)


def smooth(height: int, width: int, seed: int, num_frames: int = 2) -> ndarray:
    """Frames like blurred photographs, one drifting into the next."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    frame = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.stack([np.roll(frame, i, axis=1) for i in range(num_frames)])


def noise(height: int, width: int) -> ndarray:
    return np.random.default_rng(1).integers(0, 256, (1, height, width, 3)).astype(np.uint8)


def flat(height: int, width: int, colour: tuple[int, int, int]) -> ndarray:
    return np.full((1, height, width, 3), colour, dtype=np.uint8)


PICTURES = {
    "smooth": smooth(320, 576, 1),
    "odd-sides": smooth(331, 457, 2),
    "noise": noise(320, 576),
    "flat": flat(320, 576, (90, 140, 200)),
    "black": flat(320, 576, (0, 0, 0)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_embedded_is_read(name: str) -> None:
    marked = embed_watermark(PICTURES[name])
    assert agreement(marked) == 1.0
    assert read_watermark(marked).tolist() == message_bits().tolist()


@pytest.mark.parametrize("name", PICTURES)
def test_an_unmarked_picture_does_not_agree(name: str) -> None:
    assert agreement(PICTURES[name]) < 0.75


@pytest.mark.parametrize("name", PICTURES)
def test_the_mark_is_invisible(name: str) -> None:
    frames = PICTURES[name]
    error = (embed_watermark(frames).astype(float) - frames) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 36  # dB


def test_the_message_is_that_of_the_release() -> None:
    bits = "".join(str(int(bit)) for bit in message_bits())
    assert bits == f"{0xB3EC907BB19E:048b}"


def test_another_message_is_told_apart() -> None:
    marked = embed_watermark(PICTURES["smooth"], message=0x0123456789AB)
    assert agreement(marked, message=0x0123456789AB) == 1.0
    assert agreement(marked) < 0.75


def reference_bits(frame: ndarray) -> ndarray:
    """Read one frame as the package's EmbedMaxDct.decode does, loop by loop.

    Written from its behaviour: the Haar approximation of U in float, blocks of 4 x 4 in raster
    order, the largest coefficient but the first, a bit where it lies in the upper half of its
    interval, the mean of a bit's blocks over 127/255.
    """
    plane = cv2.cvtColor(frame[..., ::-1].copy(), cv2.COLOR_BGR2YUV)[..., 1].astype(float)
    rows, columns = (side // 4 * 4 for side in plane.shape)
    plane = plane[:rows, :columns]
    average = (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 2
    scores: list[list[int]] = [[] for _ in range(48)]
    count = 0
    for i in range(average.shape[0] // 4):
        for j in range(average.shape[1] // 4):
            block = average[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten()
            value = abs(block[np.argmax(np.abs(block[1:])) + 1])
            scores[count % 48].append(int(value % 36 > 18))
            count += 1
    return np.array([np.mean(votes) * 255 > 127 for votes in scores])


@pytest.mark.parametrize("name", PICTURES)
def test_the_packages_way_of_reading_finds_the_mark(name: str) -> None:
    assert reference_bits(embed_watermark(PICTURES[name])[0]).tolist() == message_bits().tolist()


@pytest.mark.parametrize("name", ["smooth", "odd-sides", "noise"])
def test_the_package_itself_reads_the_mark(name: str) -> None:
    package = pytest.importorskip("imwatermark")
    frame = embed_watermark(PICTURES[name])[0]
    bits = package.WatermarkDecoder("bits", 48).decode(frame[..., ::-1].copy(), "dwtDct")
    assert list(bits) == message_bits().tolist()


@pytest.mark.parametrize("name", ["noise", "black"])
def test_the_packages_mark_is_read(name: str) -> None:
    package = pytest.importorskip("imwatermark")
    encoder = package.WatermarkEncoder()
    encoder.set_watermark("bits", message_bits().astype(int).tolist())
    bgr = encoder.encode(PICTURES[name][0][..., ::-1].copy(), "dwtDct")
    assert agreement(bgr[None, ..., ::-1].copy()) == 1.0


def test_the_mark_survives_the_video_we_write(tmp_path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "marked.mp4"
    write_video(path, embed_watermark(smooth(320, 576, 1, num_frames=4)), Fraction(7))
    with av.open(str(path)) as container:
        read = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert agreement(read) == 1.0


def test_frames_too_small_for_the_message_stay_as_they_are() -> None:
    tiny = noise(40, 64)
    assert num_blocks(40, 64) == 40
    assert np.array_equal(embed_watermark(tiny), tiny)
    with pytest.raises(ValueError, match="64x40 cannot carry 48 bits"):
        read_watermark(tiny)
    assert agreement(embed_watermark(smooth(64, 96, 3))) > 0.9
