"""Frames as files for people, and stills from people's files."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy import ndarray

from svd.errors import ConfigError, MediaError, MissingInputError
from svd.media.gallery import write_contact_sheet, write_gif, write_png_frames
from svd.media.picture import fit_picture, read_picture


def moving_square(num_frames: int = 5, height: int = 40, width: int = 64) -> ndarray:
    frames = np.full((num_frames, height, width, 3), 30, dtype=np.uint8)
    for index in range(num_frames):
        frames[index, 8:24, 4 + 8 * index : 20 + 8 * index] = (200, 60, 90)
    return frames


def save(path: Path, picture: ndarray) -> Path:
    cv2.imwrite(str(path), picture[..., ::-1])
    return path


def test_a_gif_shows_every_frame_at_its_rate(tmp_path) -> None:
    frames = moving_square()
    write_gif(tmp_path / "a.gif", frames, 10)
    with av.open(str(tmp_path / "a.gif")) as container:
        stream = container.streams.video[0]
        read = [
            (f.pts * f.time_base, f.to_ndarray(format="rgb24")) for f in container.decode(stream)
        ]
    assert [float(time) for time, _ in read] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert all(np.abs(got.astype(int) - frames[i]).mean() < 3 for i, (_, got) in enumerate(read))


def test_writing_twice_gives_the_same_bytes(tmp_path) -> None:
    for name in ("a.gif", "b.gif"):
        write_gif(tmp_path / name, moving_square(), 7)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_png_frames_are_exact_and_replace_what_was_there(tmp_path) -> None:
    write_png_frames(tmp_path / "frames", moving_square(num_frames=7))
    write_png_frames(tmp_path / "frames", moving_square(num_frames=3))
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    assert np.array_equal(read_picture(tmp_path / "frames" / "00002.png"), moving_square()[2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames"]


def test_a_sheet_has_a_row_per_video_from_first_to_last_frame(tmp_path) -> None:
    videos = [moving_square(9), 255 - moving_square(9)]
    write_contact_sheet(tmp_path / "sheet.png", videos, columns=3)
    sheet = read_picture(tmp_path / "sheet.png")
    assert sheet.shape == (2 * 44 + 4, 3 * 68 + 4, 3)
    assert np.array_equal(sheet[4:44, 4:68], videos[0][0])
    assert np.array_equal(sheet[48:88, 4 + 2 * 68 : 68 + 2 * 68], videos[1][8])


def test_a_sheet_of_unlike_videos_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="needs videos of one size, not 2"):
        write_contact_sheet(tmp_path / "s.png", [moving_square(), moving_square(width=32)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
def test_pictures_are_read_as_rgb(tmp_path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", moving_square()[0])
    assert np.abs(read_picture(path).astype(int) - moving_square()[0]).mean() < 3


def test_grey_and_transparent_pictures_become_rgb(tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((9, 7), 77, dtype=np.uint8))
    assert (read_picture(tmp_path / "grey.png") == 77).all()
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((9, 7, 4), 66, dtype=np.uint8))
    assert read_picture(tmp_path / "alpha.png").shape == (9, 7, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty-file"),
        (b"no picture at all", "not-a-picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not-a-picture"),
    ],
    ids=["empty", "text", "broken-png"],
)
def test_what_is_no_picture_is_one_clear_error(tmp_path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read_picture(path)
    assert caught.value.reason == reason


def test_a_picture_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.png: no such file"):
        read_picture(tmp_path / "none.png")


@pytest.mark.parametrize(
    "size", [(64, 64), (48, 200), (33, 57), (400, 300)], ids=["square", "wide", "odd", "tall"]
)
def test_fitting_keeps_the_centre_and_fills_the_frame(size: tuple[int, int]) -> None:
    height, width = size
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[height // 2 - 4 : height // 2 + 5, width // 2 - 4 : width // 2 + 5] = 255
    fitted = fit_picture(picture, height=64, width=96)
    assert fitted.shape == (64, 96, 3)
    bright = np.argwhere(fitted[..., 0] > 127)
    assert bright.mean(axis=0) == pytest.approx([31.5, 47.5], abs=2)


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    assert np.array_equal(fit_picture(moving_square()[0], height=40, width=64), moving_square()[0])
