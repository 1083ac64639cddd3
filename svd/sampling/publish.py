"""The way from finished frames to files: filter, mark, write, and say how they were made."""

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor, from_numpy

from svd.config.sampling import SamplingConfig
from svd.media.encode import write_video
from svd.media.formats import OutputFormat
from svd.media.gallery import write_gif, write_png_frames
from svd.sampling.safety import SafetyFilter
from svd.sampling.samplers.adapters import AdapterRecord
from svd.sampling.watermark import NUM_BITS, embed_watermark, num_blocks
from svd.types.base import Record, write_records

logger = logging.getLogger(__name__)


class SampleRecord(Record):
    """<name>.json beside a sample: what is needed to make it again."""

    stage: str  # of the model
    weights_sha256: str  # of the model
    seed: int
    prompt: str | None
    negative_prompt: str | None
    picture: str | None  # file name of the conditioning picture, or of the video between
    num_segments: int
    sampling: SamplingConfig
    adapters: tuple[AdapterRecord, ...] = ()
    interpolation: SamplingConfig | None = None  # of the frames put between those sampled
    interpolation_sha256: str | None = None  # of that model's weights
    watermarked: bool
    files: tuple[str, ...]  # beside this record


def finish_frames(
    frames: UInt8[Tensor, "t H W 3"], *, safety: SafetyFilter | None, watermark: bool
) -> UInt8[Tensor, "t H W 3"]:
    """Return frames that may leave the house: filtered first, so that the mark survives a blur."""
    if safety is not None:
        frames = safety(frames)
    if not watermark:
        return frames
    if num_blocks(*frames.shape[1:3]) < NUM_BITS:
        logger.warning(
            "frames too small for the watermark",
            extra={"height": frames.shape[1], "width": frames.shape[2]},
        )
        return frames
    return from_numpy(embed_watermark(frames.numpy()))


def write_sample(
    folder: Path,
    name: str,
    frames: UInt8[Tensor, "t H W 3"],
    *,
    fps: Fraction | int,
    formats: Sequence[OutputFormat],
) -> tuple[str, ...]:
    """Write a video in each format but SHEET; return the names, beside each other in folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = frames.numpy()
    names = []
    if OutputFormat.MP4 in formats:
        write_video(folder / f"{name}.mp4", pixels, fps)
        names.append(f"{name}.mp4")
    if OutputFormat.GIF in formats:
        write_gif(folder / f"{name}.gif", pixels, fps)
        names.append(f"{name}.gif")
    if OutputFormat.PNG in formats:
        write_png_frames(folder / name, pixels)
        names.append(name)
    return tuple(names)


def write_sample_record(folder: Path, name: str, record: SampleRecord) -> None:
    """Write <name>.json."""
    write_records(folder / f"{name}.json", [record])
