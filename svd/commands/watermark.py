"""`svd watermark`: was this video or picture sampled here?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy import ndarray

_MAX_FRAMES = 32  # read of a video; the vote is clear long before


def watermark(
    paths: Annotated[list[Path], typer.Argument(help="Videos, pictures or folders of frames.")],
) -> None:
    """Say whether files carry the invisible mark of `svd sample`."""
    from svd.sampling.watermark import NUM_BITS, agreement, is_marked, num_blocks

    for path in paths:
        frames = _read_frames(path)
        height, width = frames.shape[1:3]
        if num_blocks(height, width) < NUM_BITS:
            typer.echo(f"{path}: {width}x{height} is too small to carry the mark")
            continue
        share = agreement(frames)
        verdict = "marked" if is_marked(share) else "not marked"
        typer.echo(f"{path}: {verdict} ({round(share * NUM_BITS)} of {NUM_BITS} bits agree)")


def _read_frames(path: Path) -> "UInt8[ndarray, 't H W 3']":
    from itertools import islice

    import numpy as np

    from svd.errors import MissingInputError
    from svd.media.decode import decode_frames
    from svd.media.picture import PICTURE_SUFFIXES, read_picture

    if path.is_dir():
        members = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not members:
            raise MissingInputError(f"{path} holds no frames")
        return np.stack([read_picture(member) for member in members[:_MAX_FRAMES]])
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return read_picture(path)[None]
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    timed = islice(decode_frames(path), _MAX_FRAMES)
    return np.stack([one.frame.to_ndarray(format="rgb24") for one in timed])
