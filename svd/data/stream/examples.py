"""One encoded clip: its members in a shard, packed and unpacked."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from svd.data.stream.shards import ByteSource, PackedExample, read_members
from svd.errors import IntegrityError
from svd.types.shard import ExampleEntry, ExampleMeta, ShardInfo

META = "json"
EMBEDS = "image_embeds.npy"
_NPY_MAGIC = b"\x93NUMPY\x01\x00"  # format 1.0; two bytes of the header's length follow
_NPY_PREFIX = len(_NPY_MAGIC) + 2
_NPY_HEADER = re.compile(
    rb"\{'descr': '<f2', 'fortran_order': False, 'shape': \(([\d, ]*)\), \}\s*"
)
_PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def cond_member(block: int) -> str:
    """Return the extension of a block's first frame, a lossless picture."""
    return f"cond.{block:04d}.png"


def moments_member(block: int) -> str:
    """Return the extension of a block's posterior moments: fp16, (frames, 2, c, h, w)."""
    return f"moments.{block:04d}.npy"


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip as tensors; t stored frames in k blocks of `block_frames` (the last may be short).

    Attributes:
        meta: All that is no tensor.
        moments: Mean (index 0) and log variance (1) of the autoencoder's posterior.
        cond_frames: First frame of each block, 0..255.
        image_embeds: Embeddings of those.
    """

    meta: ExampleMeta
    moments: Float[Tensor, "t 2 c h w"]
    cond_frames: UInt8[Tensor, "k 3 H W"]
    image_embeds: Float[Tensor, "k d"]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a stored clip, as a training example.

    Attributes:
        moments: Of its frames.
        cond_frame: Its first frame, 0..255.
        image_embed: Embedding of that.
        last_embed: Embedding of its last frame, if that is the first of a block.
    """

    meta: ExampleMeta
    moments: Float[Tensor, "t 2 c h w"]
    cond_frame: UInt8[Tensor, "3 H W"]
    image_embed: Float[Tensor, " d"]
    last_embed: Float[Tensor, " d"] | None


def pack(clip: EncodedClip, *, block_frames: int) -> PackedExample:
    """Return the members of a clip.

    Small things every reader needs come first, then pictures, then moments, so that a window is
    few and short reads: the meta data and embeddings, one picture, neighbouring blocks.
    """
    moments = clip.moments.to(torch.float16).numpy()
    starts = range(0, len(moments), block_frames)
    members = {
        META: clip.meta.canonical_json().encode(),
        EMBEDS: _npy(clip.image_embeds.to(torch.float16).numpy()),
    }
    members |= {cond_member(b): _png(clip.cond_frames[b]) for b in range(len(starts))}
    members |= {
        moments_member(b): _npy(moments[start : start + block_frames])
        for b, start in enumerate(starts)
    }
    return PackedExample(clip.meta.clip_id, len(moments), members)


def read_window(
    source: ByteSource,
    shard: ShardInfo,
    entry: ExampleEntry,
    *,
    block: int,
    frames: Sequence[int],
    block_frames: int,
) -> Window:
    """Read a window of an example.

    Args:
        source: Where the shard lies.
        shard: The tar.
        entry: The example.
        block: Block that the window starts with.
        frames: Stored frames of the window, rising; the first is the block's first.
        block_frames: Frames per block.

    Raises:
        MissingInputError: The shard is not there.
        IntegrityError: Bytes are not those that were written, or not an example.
        StoreError: The store failed.
    """
    last = frames[-1] // block_frames
    names = [moments_member(b) for b in range(block, last + 1)]
    found = read_members(source, shard, entry, [META, EMBEDS, cond_member(block), *names])
    blocks = np.concatenate([_from_npy(found[name]) for name in names])
    picked = blocks[[frame - block * block_frames for frame in frames]]
    embeds = torch.from_numpy(_from_npy(found[EMBEDS]).astype(np.float32))
    return Window(
        meta=ExampleMeta.parse(found[META].decode(), origin=f"{shard.uri}: {entry.key}.{META}"),
        moments=torch.from_numpy(picked.astype(np.float32)),
        cond_frame=_from_png(found[cond_member(block)]),
        image_embed=embeds[block],
        last_embed=None if frames[-1] % block_frames else embeds[last],
    )


def _npy(array: NDArray[np.float16]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _from_npy(content: bytes) -> NDArray[np.float16]:
    """Read an array as `_npy` writes one.

    np.load would parse the header as Python source, which is slow, and in CPython 3.11 fails now
    and then where threads do it at once ("AST constructor recursion depth mismatch").
    """
    start = _NPY_PREFIX + int.from_bytes(content[len(_NPY_MAGIC) : _NPY_PREFIX], "little")
    header = _NPY_HEADER.fullmatch(content[_NPY_PREFIX:start])
    if not content.startswith(_NPY_MAGIC) or header is None:
        raise IntegrityError(f"{len(content)} bytes are not an array of half-precision numbers")
    shape = tuple(int(size) for size in header[1].split(b",") if size.strip())
    array: NDArray[np.float16] = np.frombuffer(content, "<f2", offset=start).reshape(shape)
    if not np.isfinite(array).all():
        raise IntegrityError(f"an array of shape {shape} holds numbers that are not finite")
    return array


def _png(frame: UInt8[Tensor, "3 H W"]) -> bytes:
    bgr = frame.numpy()[::-1].transpose(1, 2, 0)
    done, content = cv2.imencode(".png", np.ascontiguousarray(bgr), _PNG_FAST)
    if not done:
        raise IntegrityError(f"a picture of shape {tuple(frame.shape)} could not be written as PNG")
    return bytes(content)


def _from_png(content: bytes) -> UInt8[Tensor, "3 H W"]:
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise IntegrityError(f"{len(content)} bytes are not a PNG picture")
    return torch.from_numpy(np.ascontiguousarray(bgr[:, :, ::-1].transpose(2, 0, 1)))
