"""Five hundred files that lie about what they are: seeded, so that number n is always the same."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

NUM_MUTANTS = 500
SEED = 2311_15127
# Fields that say how large, long or many something is, in the containers that are mutated.
TENDER_SPOTS = (
    b"ftyp", b"moov", b"mvhd", b"tkhd", b"mdhd", b"stsd", b"avc1", b"avcC", b"stts", b"ctts",
    b"stss", b"stsz", b"stsc", b"stco", b"elst", b"mdat", b"avih", b"strh", b"strf", b"idx1",
    b"\x1aE\xdf\xa3", b"\x16T\xaek", b"\xb0\x82", b"\xba\x82",
)  # fmt: skip
ABSURD = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\x00\x40\x00")
SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".txt", "", ".jpg", ".ts", ".m3u8", ".h264")
PATHLIKE = (
    "..\\..\\up.mp4", "file:up.mp4", "concat:a.mp4|b.mp4", "http:host.mp4", "-i.mp4", "a\nb.mp4",
    "frame%03d.mp4", "$(touch hit).mp4", "a'b\"c.mp4", "\udcff\udcfe.mp4", "%2e%2e%2fup.mp4",
    "CON.mp4", "...", "\u202e4pm.mp4", "subfile,,start,0,end,9,,:a.mp4",
    "n" * 240 + ".mp4", "* ?.mp4",
)  # fmt: skip

Bytes = Callable[[bytes, np.random.Generator], bytes]


class Mutant(NamedTuple):
    """A file to write."""

    name: str
    data: bytes


def flip_bits(data: bytes, generator: np.random.Generator) -> bytes:
    mutant = bytearray(data)
    for position in generator.integers(0, len(data), int(generator.integers(1, 60))):
        mutant[position] ^= 1 << int(generator.integers(8))
    return bytes(mutant)


def truncate(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: int(generator.integers(0, len(data)))]


def absurd_header(data: bytes, generator: np.random.Generator) -> bytes:
    mutant = bytearray(data)
    present = [spot for spot in TENDER_SPOTS if spot in data] or [data[:4]]
    for _ in range(int(generator.integers(1, 4))):
        spot = present[int(generator.integers(len(present)))]
        position = data.index(spot) + int(generator.integers(-4, 40))
        position = min(max(0, position), len(data) - 4)
        mutant[position : position + 4] = ABSURD[int(generator.integers(len(ABSURD)))]
    return bytes(mutant)


def overwrite(data: bytes, generator: np.random.Generator) -> bytes:
    start = int(generator.integers(0, len(data)))
    length = int(generator.integers(1, 400))
    noise = generator.integers(0, 256, length, np.uint8).tobytes()
    return data[:start] + noise + data[start + length :]


def splice(data: bytes, generator: np.random.Generator) -> bytes:
    start, stop = sorted(int(n) for n in generator.integers(0, len(data), 2))
    return data[:stop] + data[start:]


def resize(side: int) -> Bytes:
    """Return a mutation that makes the container claim pictures of side x side."""

    def mutate(data: bytes, _: np.random.Generator) -> bytes:
        mutant = bytearray(data)
        if (at := data.find(b"avc1", data.find(b"stsd"))) > 0:  # sample entry: 24 bytes on
            mutant[at + 28 : at + 32] = struct.pack(">HH", side & 0xFFFF, side & 0xFFFF)
        if (at := data.find(b"tkhd")) > 0:  # version 0: 16.16 fixed point, the last 8 bytes
            mutant[at + 80 : at + 88] = struct.pack(">II", side << 16 & 0xFFFFFFFF, side << 16)
        if (at := data.find(b"strf")) > 0:  # BITMAPINFOHEADER, after the chunk's size
            mutant[at + 12 : at + 20] = struct.pack("<ii", side, side)
        for tag in (b"\xb0\x81", b"\xba\x81"):  # PixelWidth, PixelHeight of one byte
            if (at := data.find(tag)) > 0:
                mutant[at + 2] = side & 0xFF
        return bytes(mutant)

    return mutate


def frame_bomb(data: bytes, generator: np.random.Generator) -> bytes:
    """Return an AVI of 64 x 64 whose few kilobytes of PNG unfold to pictures of up to 16k."""
    side = int(generator.choice([4096, 8192, 16384]))
    num_frames = int(generator.integers(2, 6))
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "gray"
        for number in range(num_frames):
            packet = av.Packet(_png(side))
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.is_keyframe = True
            container.mux(packet)
    return file.getvalue()


def _png(side: int) -> bytes:
    """Return a black picture: 8-bit grey, side x side."""
    packer = zlib.compressobj(9)
    rows = bytes(side + 1) * 64
    body = b"".join(packer.compress(rows) for _ in range(side // 64)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def archive(data: bytes, generator: np.random.Generator) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in (
            ("../../up.mp4", data),
            ("zeros", bytes(int(generator.integers(1, 4)) << 20)),
        ):
            packed.writestr(zipfile.ZipInfo(name), content)  # of 1980, whenever it is made
    return file.getvalue()


def unchanged(data: bytes, generator: np.random.Generator) -> bytes:
    """Return the same film with a few bytes behind it, so that no two are equal."""
    return data + generator.bytes(8)


# As often as they stand here. The suffix of all but the last is drawn at random.
KINDS: tuple[Bytes, ...] = (
    flip_bits, truncate, absurd_header, overwrite, splice, flip_bits, resize(0), absurd_header,
    truncate, resize(16_384), flip_bits, overwrite, archive, splice, absurd_header, frame_bomb,
    flip_bits, truncate, resize(65_535), unchanged,
)  # fmt: skip


def mutants(originals: list[bytes], num: int) -> Iterator[Mutant]:
    """Yield the first so many of the five hundred."""
    for number in range(num):
        generator = np.random.default_rng([SEED, number])
        mutate = KINDS[number % len(KINDS)]
        data = mutate(originals[int(generator.integers(len(originals)))], generator)
        if mutate is unchanged:
            turn = number // len(KINDS)
            name = PATHLIKE[turn % len(PATHLIKE)]
            name = name if turn < len(PATHLIKE) else f"{number}{name}"[:250]
        else:
            name = f"{number:03d}{SUFFIXES[int(generator.integers(len(SUFFIXES)))]}"
        yield Mutant(name, data)


def write_mutants(folder: Path, originals: list[bytes], num: int) -> None:
    folder.mkdir()
    for mutant in mutants(originals, num):
        (folder / mutant.name).write_bytes(mutant.data)
