"""A fit in one process, resumable bit for bit: for networks too small to need DeepSpeed.

A fit owns the clock, the average, the history and the checkpoints; a pupil, what one step does.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.fit import FitSchedule
from svd.models.checkpoints.weights import open_weights, save_state
from svd.runtime.progress import track
from svd.runtime.tracking import Tracker
from svd.training.checkpoints.ema import ema_decay_at
from svd.types.base import Record

logger = logging.getLogger(__name__)


class FitRow(Record):
    """What each row of history.jsonl says, beside its own losses: means since the row before."""

    step: int  # optimizer steps made
    examples_seen: int
    loss: float
    grad_norm: float  # of the last step, before clipping
    lr: float  # Adam's, of the last step


R = TypeVar("R", bound=FitRow)
R_co = TypeVar("R_co", bound=FitRow, covariant=True)


class Update(NamedTuple):
    """What one optimizer step tells."""

    losses: Float[Tensor, " n"]  # on the CPU, in float64, in the order of the pupil's names
    grad_norm: float  # before clipping


class Pupil(Protocol[R_co]):
    """A network that is fitted."""

    losses: ClassVar[tuple[str, ...]]  # names of what a step tells; fields of its row

    @property
    def row_type(self) -> type[R_co]:
        """Kind of the history's rows."""

    def trained(self) -> Mapping[str, nn.Parameter]:
        """Return the parameters that learn, by name."""

    def update(self, step: int, *, factor: float) -> Update:
        """Make one optimizer step, at this share of the peak rates.

        Every draw hangs on (seed, step).

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; raised before the update.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and optimizer state, by name."""

    def restore(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Take back what `tensors` returned after so many steps, in the same memory layout."""


class SoloFit(Generic[R]):
    """The course of a fit.

    Attributes:
        pupil: What is fitted.
        step: Optimizer steps made.
        rows: History so far.
        ema: Running averages of the pupil's parameters, by name.
    """

    def __init__(self, pupil: Pupil[R], schedule: FitSchedule, checkpoint: Path) -> None:
        """Stand before the first step.

        Args:
            pupil: What is fitted.
            schedule: How long and how fast.
            checkpoint: Where all that a resume needs is written, atomically, at intervals.
        """
        self.pupil = pupil
        self.step = 0
        self.rows: list[R] = []
        self.ema = {name: value.detach().clone() for name, value in pupil.trained().items()}
        self._schedule = schedule
        self._checkpoint = checkpoint
        self._window = torch.zeros(len(pupil.losses), dtype=torch.float64)  # since the last row

    def run(self, *, description: str, tracker: Tracker) -> None:
        """Fit to the end, from the checkpoint if there is one; leave the average in the network.

        Args:
            description: Beside the progress bar.
            tracker: Told each new row of the history.

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; raised before the update.
            CheckpointError: The checkpoint is not whole.
        """
        if self._checkpoint.is_file():
            self._load()
            logger.info("resumed from a checkpoint", extra={"step": self.step})
        steps = range(self.step, self._schedule.num_steps)
        with _deterministic():
            for step in track(steps, total=len(steps), description=description):
                self._advance(step, tracker)
        with torch.no_grad():
            for name, parameter in self.pupil.trained().items():
                parameter.copy_(self.ema[name])

    def _advance(self, step: int, tracker: Tracker) -> None:
        schedule = self._schedule
        factor = rate_factor(step, num_steps=schedule.num_steps, warmup=schedule.lr_warmup_steps)
        update = self.pupil.update(step, factor=factor)
        self._window += update.losses
        self._average()
        self.step = step + 1
        if self.step % schedule.log_every_steps == 0 or self.step == schedule.num_steps:
            row = self._row(update.grad_norm, schedule.lr * factor)
            self.rows.append(row)
            tracker.log(row.model_dump(exclude={"step", "examples_seen"}), step=row.step)
            self._window.zero_()
        if self.step % schedule.checkpoint_every_steps == 0:
            self._save()

    @torch.no_grad()
    def _average(self) -> None:
        keep = ema_decay_at(self._schedule.ema_decay, self.step)
        for name, parameter in self.pupil.trained().items():
            self.ema[name].lerp_(parameter, 1 - keep)

    def _row(self, grad_norm: float, lr: float) -> R:
        count = (self.step - 1) % self._schedule.log_every_steps + 1
        means = dict(zip(self.pupil.losses, (self._window / count).tolist(), strict=True))
        return self.pupil.row_type(
            step=self.step,
            examples_seen=self.step * self._schedule.batch_size,
            grad_norm=grad_norm,
            lr=lr,
            **means,
        )

    def _save(self) -> None:
        tensors = {f"pupil.{name}": tensor for name, tensor in self.pupil.tensors().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.items()}
        rows = json.dumps([row.model_dump(mode="json") for row in self.rows])
        save_state(
            {name: tensor.contiguous() for name, tensor in tensors.items()}
            | {"window": self._window},
            self._checkpoint,
            metadata={"step": str(self.step), "rows": rows},
        )

    def _load(self) -> None:
        with open_weights(self._checkpoint) as saved:
            self.step = int(saved.metadata["step"])
            rows = json.loads(saved.metadata["rows"])
            tensors = dict(saved)
        kind = self.pupil.row_type
        self.rows = [kind.model_validate_json(json.dumps(row)) for row in rows]
        self._window = tensors["window"]
        for name, average in self.ema.items():
            average.copy_(tensors[f"ema.{name}"])
        own = {
            name.removeprefix("pupil."): tensor
            for name, tensor in tensors.items()
            if name.startswith("pupil.")
        }
        self.pupil.restore(own, step=self.step)


def rate_factor(step: int, *, num_steps: int, warmup: int) -> float:
    """Return a step's share of the peak rates: a linear rise, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (num_steps - warmup)
    return (1 + math.cos(math.pi * progress)) / 2


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)
