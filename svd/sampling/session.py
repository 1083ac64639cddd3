"""A run of `svd sample`: batch by batch from draws to files, so that a kill costs one batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.config.sampling import SamplingConfig
from svd.media.formats import OutputFormat
from svd.media.gallery import write_contact_sheet
from svd.sampling.interpolate import Interpolator
from svd.sampling.publish import (
    SampleRecord,
    finish_frames,
    write_sample,
    write_sample_record,
)
from svd.sampling.request import Draw
from svd.sampling.safety import SafetyFilter
from svd.sampling.samplers.adapters import adapter_records
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.sampler import image_to_video, text_to_video
from svd.sampling.samplers.solver import OnStep
from svd.types.artifact import ModelRecord

_SHEET_COLUMNS = 6  # pictures per video on the contact sheet
SHEET_FILE = "sheet.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What stays the same for all videos of a run.

    Attributes:
        components: The loaded model.
        record: Its model.json.
        config: How to sample.
        negative_prompt: What guidance leads away from; prompts only.
        num_segments: More than 1 continues from the last frame; pictures only.
        out: Folder of the files.
        formats: What to write.
        watermark: Whether frames carry the invisible mark.
        safety: Sees every video before it is written; None lets all pass.
        interpolator: Puts new frames between those of every video; None leaves them.
        interpolation_sha256: Of its weights.
    """

    components: Components
    record: ModelRecord
    config: SamplingConfig
    negative_prompt: str = ""
    num_segments: int = 1
    out: Path
    formats: tuple[OutputFormat, ...]
    watermark: bool
    safety: SafetyFilter | None = None
    interpolator: Interpolator | None = None
    interpolation_sha256: str | None = None

    def num_steps(self, draws: Sequence[Draw]) -> int:
        """Return how often on_step will be called."""
        config = self.config
        lengths = [len(d.subject.footage.frames) for d in draws if d.subject.footage is not None]
        num_batches = 0 if lengths else -(-len(draws) // config.batch_size)
        lengths = lengths or [self.num_segments * (config.num_frames - 1) + 1] * len(draws)
        steps = num_batches * self.num_segments * config.schedule.num_steps
        if self.interpolator is not None:
            steps += sum(self.interpolator.num_steps(length) for length in lengths)
        return steps

    def fps(self, draw: Draw) -> Fraction:
        """Return the rate at which a video is written."""
        footage = draw.subject.footage
        own = None if footage is None else footage.fps
        return (own or Fraction(self.config.fps)) * (
            self.interpolator.factor if self.interpolator else 1
        )


def run_session(
    session: Session, draws: Sequence[Draw], *, on_step: OnStep
) -> Iterator[tuple[str, ...]]:
    """Sample and write every draw; yield the names of each video's files when they are there.

    Args:
        session: Model and settings.
        draws: All from pictures, all from prompts, or all from videos.
        on_step: Called after each solver step of each batch.
    """
    config = session.config
    session.components.check_size(config.height, config.width)
    rows: list[UInt8[np.ndarray, "t H W 3"]] = []
    for start in range(0, len(draws), config.batch_size):
        batch = draws[start : start + config.batch_size]
        for draw, sampled in zip(batch, _sample(session, batch, on_step), strict=True):
            frames = finish_frames(sampled, safety=session.safety, watermark=session.watermark)
            files = write_sample(
                session.out, draw.name, frames, fps=session.fps(draw), formats=session.formats
            )
            write_sample_record(session.out, draw.name, _record(session, draw, files))
            if OutputFormat.SHEET in session.formats:
                shown = np.linspace(0, len(frames) - 1, _SHEET_COLUMNS).round().astype(int)
                rows.append(frames.numpy()[shown])
            yield (*files, f"{draw.name}.json")
    if rows:
        write_contact_sheet(session.out / SHEET_FILE, rows, columns=_SHEET_COLUMNS)
        yield (SHEET_FILE,)


def _sample(
    session: Session, batch: Sequence[Draw], on_step: OnStep
) -> list[UInt8[Tensor, "t H W 3"]]:
    known = [d.subject.footage for d in batch if d.subject.footage is not None]
    videos = [torch.from_numpy(footage.frames) for footage in known]
    videos = videos or list(_generate(session, batch, on_step))
    if session.interpolator is None:
        return videos
    return [
        session.interpolator(video, seed=draw.seed, on_step=on_step)
        for video, draw in zip(videos, batch, strict=True)
    ]


def _generate(
    session: Session, batch: Sequence[Draw], on_step: OnStep
) -> UInt8[Tensor, "b t H W 3"]:
    seeds = [draw.seed for draw in batch]
    pictures = [draw.subject.picture for draw in batch if draw.subject.picture is not None]
    if pictures:
        return image_to_video(
            session.components,
            torch.from_numpy(np.stack(pictures)),
            config=session.config,
            seeds=seeds,
            num_segments=session.num_segments,
            on_step=on_step,
        )
    return text_to_video(
        session.components,
        [draw.subject.prompt or "" for draw in batch],
        config=session.config,
        seeds=seeds,
        negative_prompt=session.negative_prompt,
        on_step=on_step,
    )


def _record(session: Session, draw: Draw, files: tuple[str, ...]) -> SampleRecord:
    subject = draw.subject
    return SampleRecord(
        stage=session.record.stage,
        weights_sha256=session.record.weights_sha256,
        seed=draw.seed,
        prompt=subject.prompt,
        negative_prompt=None if subject.prompt is None else session.negative_prompt,
        picture=subject.origin,
        num_segments=session.num_segments,
        sampling=session.config,
        adapters=adapter_records(session.components.adapters),
        interpolation=None if session.interpolator is None else session.interpolator.config,
        interpolation_sha256=session.interpolation_sha256,
        watermarked=session.watermark,
        files=files,
    )
