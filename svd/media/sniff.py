"""What a file is, told by its bytes and not by its name, before a demuxer is let near it."""

import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEAD_BYTES = 4096  # enough for every signature below and for telling text from binary data
_MAX_BOXES = 10_000  # top-level boxes looked at; a fragmented file has one pair per fragment

_IMAGE_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
)
# Major brands of ISO base media files that hold pictures. Source: MPEG-A part 22, AV1 image format.
_IMAGE_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
}


class TopBoxes(NamedTuple):
    """The outermost boxes of an ISO base media file (mp4, mov)."""

    has_index: bool  # a complete moov box, or a fragment's moof
    cut_box: str | None  # type of the box in which the file ends too early
    missing_bytes: int  # of that box


def image_kind(head: bytes) -> str | None:
    """Return the name of the image format the bytes begin, or None."""
    for signature, name in _IMAGE_SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return _IMAGE_BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None


def is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file read as text in UTF-8."""
    if b"\x00" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as err:
        # A character that the cut through the file splits is no sign of binary data.
        return err.start >= len(head) - 3 and err.reason == "unexpected end of data"
    return True


def is_iso_media(head: bytes) -> bool:
    """Return whether the bytes begin an mp4 or mov file."""
    return head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"styp"}


def declared_size(head: bytes) -> int | None:
    """Return the bytes that an AVI or Matroska file says it has; None if it does not say.

    Source: Microsoft RIFF; RFC 8794 (EBML), 4 and 6; RFC 9559 (Matroska), 5.1.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    header = _ebml_size(head, 4)
    if header is None:
        return None
    segment = header.content + header.size
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return None
    body = _ebml_size(head, segment + 4)
    return None if body is None else body.content + body.size


class _EbmlSize(NamedTuple):
    content: int  # where the element's content begins
    size: int  # of the content, in bytes


def _ebml_size(head: bytes, position: int) -> _EbmlSize | None:
    """Read an element's size; None if it is unknown, as in live recordings, or not there."""
    if position >= len(head) or head[position] == 0:
        return None
    length = 9 - head[position].bit_length()
    raw = head[position : position + length]
    value = int.from_bytes(raw, "big") & ((1 << 7 * length) - 1)
    if len(raw) < length or value == (1 << 7 * length) - 1:
        return None
    return _EbmlSize(position + length, value)


def top_boxes(path: Path) -> TopBoxes:
    """Walk the outermost boxes of an mp4 or mov file. Source: ISO/IEC 14496-12, 4.2."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        position, has_index = 0, False
        for _ in range(_MAX_BOXES):
            box = _box_at(file, position, end)
            if box is None:
                break
            kind, size = box
            if position + size > end:
                return TopBoxes(has_index, kind, position + size - end)
            has_index = has_index or kind in {"moov", "moof"}
            position += size
    return TopBoxes(has_index, None, 0)


def _box_at(file: BinaryIO, position: int, end: int) -> tuple[str, int] | None:
    """Return a box's type and size in bytes; None at the end or where no box can be."""
    file.seek(position)
    header = file.read(16)
    if len(header) < 8:
        return None
    size = int.from_bytes(header[:4], "big")
    kind = header[4:8].decode("latin-1")
    if size == 1 and len(header) == 16:
        size = int.from_bytes(header[8:16], "big")
    elif size == 0:
        size = end - position  # by definition the last box, up to the end of the file
    return (kind, size) if size >= 8 else None
