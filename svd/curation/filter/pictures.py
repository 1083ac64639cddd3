"""Contact sheets: the middle frames of clips, with what was decided and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from svd.curation.clip.bank import FrameBank

_TILE = (192, 108)  # px, width and height of a picture
_CAPTION_PX = 30  # height of the text below it
_GAP_PX = 6
_COLUMNS = 6
_BACKGROUND = (250, 250, 250)  # BGR
_INK = (40, 40, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Tile:
    """One clip on a sheet."""

    video_id: str
    frame: int  # in the video's bank
    lines: tuple[str, ...]  # at most two


def draw_sheet(path: Path, tiles: Sequence[Tile], banks: Mapping[str, FrameBank]) -> None:
    """Write a contact sheet as JPEG; equal input gives equal bytes."""
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    cell = (_TILE[0] + _GAP_PX, _TILE[1] + _CAPTION_PX + _GAP_PX)
    size = (rows * cell[1] + _GAP_PX, columns * cell[0] + _GAP_PX, 3)
    sheet = np.full(size, _BACKGROUND, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = column * cell[0] + _GAP_PX, row * cell[1] + _GAP_PX
        picture = _fitted(banks[tile.video_id].picture(tile.frame))
        sheet[top : top + _TILE[1], left : left + _TILE[0]] = picture
        for number, line in enumerate(tile.lines[:2]):
            place = (left, top + _TILE[1] + 12 + 13 * number)
            cv2.putText(sheet, line, place, _FONT, 0.36, _INK, 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    path.write_bytes(cv2.imencode(".jpg", sheet, quality)[1].tobytes())


def _fitted(picture: np.ndarray) -> np.ndarray:
    """Return the picture inside a tile, with bars where its aspect differs."""
    height, width = picture.shape[:2]
    scale = min(_TILE[0] / width, _TILE[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = np.full((_TILE[1], _TILE[0], 3), 20, dtype=np.uint8)
    left, top = (_TILE[0] - size[0]) // 2, (_TILE[1] - size[1]) // 2
    tile[top : top + size[1], left : left + size[0]] = cv2.resize(
        picture, size, interpolation=cv2.INTER_AREA
    )
    return tile
