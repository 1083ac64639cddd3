"""What is left of a step that was not finite: its examples, on disk, and a sentence."""

import math
from itertools import chain
from typing import Protocol

import torch.distributed as dist

from svd.errors import TrainingDivergedError
from svd.training.stage.job import DivergedExample, RunFolder
from svd.types.base import write_records
from svd.types.batch import LatentBatch

_NUM_NAMED = 8  # examples named in the sentence


class Measured(Protocol):
    """Losses and noise levels of a global batch, in its order."""

    @property
    def losses(self) -> list[float]:
        """One per example."""

    @property
    def sigmas(self) -> list[float]:
        """One per example."""


def divergence(
    folder: RunFolder, batch: LatentBatch, measured: Measured, phase: str, step: int
) -> TrainingDivergedError:
    """Write every example of the step down; return the error that names those to look at.

    Those are the ones whose loss is not finite; all of the batch if only the gradient is not. All
    ranks call this together.
    """
    mine = list(zip(batch.clip_ids, batch.start_frames, batch.positions, strict=True))
    parts: list[list[tuple[str, int, int]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, mine)
    examples = [
        DivergedExample(
            phase=phase,
            step=step,
            clip_id=clip_id,
            start_frame=start_frame,
            position=position,
            sigma=sigma,
            loss=loss if math.isfinite(loss) else None,
            is_suspect=not math.isfinite(loss),
        )
        for (clip_id, start_frame, position), loss, sigma in zip(
            chain.from_iterable(parts), measured.losses, measured.sigmas, strict=True
        )
    ]
    if dist.get_rank() == 0:
        write_records(folder.divergence, examples)
    suspects = [example.clip_id for example in examples if example.is_suspect]
    what = "loss" if suspects else "gradient"
    named = suspects or [example.clip_id for example in examples]
    more = f" and {len(named) - _NUM_NAMED} more" if len(named) > _NUM_NAMED else ""
    return TrainingDivergedError(
        f"{phase}: the {what} of step {step} is not finite; its clips: "
        f"{', '.join(named[:_NUM_NAMED])}{more} (all in {folder.divergence}); the weights are "
        "those before the step"
    )
