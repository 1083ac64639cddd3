"""The training loop of the autoencoder: one process, resumable, bit for bit."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from svd.config.autoencoder import AutoencoderTraining
from svd.data.frames import Frames
from svd.errors import TrainingDivergedError
from svd.models.autoencoder import Autoencoder
from svd.models.weights import open_weights, save_state
from svd.runtime.progress import track
from svd.runtime.seed import torch_generator
from svd.training.ema import ema_decay_at
from svd.training.muon import Muon
from svd.types.base import Record

_STEP = 31  # what a draw decides; the second part of its key, after the seed


class FitRow(Record):
    """One row of history.jsonl: means since the row before."""

    step: int  # optimizer steps made
    examples_seen: int  # crops trained on
    loss: float
    l1: float  # mean absolute error, of pixels in -1..1
    kl: float  # nats per pixel value
    grad_norm: float  # of the last step, before clipping
    lr: float  # of the last step, of the parameters that are no kernels


@dataclass(slots=True)
class FitState:
    """All that a resumed run needs.

    Attributes:
        autoencoder: The weights being trained.
        ema: Their running average, by name.
        optimizer: Muon and Adam.
        step: Optimizer steps made.
        rows: History so far.
        window: Sums of (loss, l1, kl) since the last row.
    """

    autoencoder: Autoencoder
    ema: dict[str, Tensor]
    optimizer: Muon
    step: int
    rows: list[FitRow]
    window: Float[Tensor, "3"]


def start(autoencoder: Autoencoder) -> FitState:
    """Return the state before the first step."""
    ema = {name: value.detach().clone() for name, value in autoencoder.named_parameters()}
    optimizer = Muon(autoencoder.named_parameters())
    return FitState(
        autoencoder, ema, optimizer, step=0, rows=[], window=torch.zeros(3, dtype=torch.float64)
    )


def fit(
    state: FitState,
    frames: Frames,
    config: AutoencoderTraining,
    *,
    seed: int,
    checkpoint: Path,
    on_row: Callable[[FitRow], None],
) -> None:
    """Train from the state's step to the last one.

    Every draw hangs on (seed, step), so a run resumed from `checkpoint` ends in the same bits.

    Args:
        state: Changed in place.
        frames: Training frames.
        config: How.
        seed: Of crops, flips and posterior noise.
        checkpoint: Written at intervals, atomically.
        on_row: Told each new row of the history.

    Raises:
        TrainingDivergedError: Loss or gradient is not finite; raised before the update.
    """
    steps = range(state.step, config.num_steps)
    for step in track(steps, total=len(steps), description="training the autoencoder"):
        factor = rate_factor(step, num_steps=config.num_steps, warmup=config.lr_warmup_steps)
        parts, grad_norm = _update(state, frames, config, factor=factor, seed=seed, step=step)
        state.window += parts
        _average(state, config.ema_decay, step)
        state.step = step + 1
        if state.step % config.log_every_steps == 0 or state.step == config.num_steps:
            count = (state.step - 1) % config.log_every_steps + 1
            loss, l1, kl = (state.window / count).tolist()
            row = FitRow(
                step=state.step,
                examples_seen=state.step * config.batch_size,
                loss=loss,
                l1=l1,
                kl=kl,
                grad_norm=grad_norm,
                lr=config.lr * factor,
            )
            state.rows.append(row)
            on_row(row)
            state.window.zero_()
        if state.step % config.checkpoint_every_steps == 0:
            save_fit(state, checkpoint)


def rate_factor(step: int, *, num_steps: int, warmup: int) -> float:
    """Return a step's share of the peak rates: a linear rise, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (num_steps - warmup)
    return (1 + math.cos(math.pi * progress)) / 2


def draw_crops(
    frames: Frames, *, batch_size: int, crop: int, grid: int, generator: torch.Generator
) -> UInt8[Tensor, "b 3 s s"]:
    """Draw square crops on a grid, each mirrored with probability one half."""
    height, width = frames.shape[2:]

    def draw(high: int) -> list[int]:
        drawn: list[int] = torch.randint(high, (batch_size,), generator=generator).tolist()
        return drawn

    picked, mirrored = draw(len(frames)), draw(2)
    tops, lefts = draw((height - crop) // grid + 1), draw((width - crop) // grid + 1)
    crops = []
    for index, top, left, mirror in zip(picked, tops, lefts, mirrored, strict=True):
        rows = slice(grid * top, grid * top + crop)
        columns = slice(grid * left, grid * left + crop)
        picture = torch.from_numpy(frames[index, :, rows, columns].copy())
        crops.append(picture.flip(2) if mirror else picture)
    return torch.stack(crops)


def save_fit(state: FitState, path: Path) -> None:
    """Write the state, atomically."""
    tensors = state.optimizer.state() | {"window": state.window}
    for name, parameter in state.autoencoder.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach().contiguous()
        tensors[f"ema.{name}"] = state.ema[name].contiguous()
    rows = json.dumps([row.model_dump(mode="json") for row in state.rows])
    save_state(tensors, path, metadata={"step": str(state.step), "rows": rows})


def load_fit(state: FitState, path: Path) -> None:
    """Fill the state from a checkpoint of the same autoencoder.

    Raises:
        CheckpointError: The file is not whole.
    """
    with open_weights(path) as saved, torch.no_grad():
        state.step = int(saved.metadata["step"])
        state.window = saved["window"]
        state.rows = [
            FitRow.model_validate_json(json.dumps(row))
            for row in json.loads(saved.metadata["rows"])
        ]
        for name, parameter in state.autoencoder.named_parameters():
            parameter.copy_(saved[f"weight.{name}"])
            state.ema[name].copy_(saved[f"ema.{name}"])
        state.optimizer.restore(dict(saved), step=state.step)


def _update(
    state: FitState,
    frames: Frames,
    config: AutoencoderTraining,
    *,
    factor: float,
    seed: int,
    step: int,
) -> tuple[Float[Tensor, "3"], float]:
    """Make one optimizer step; return (loss, l1, kl) and the norm of the gradient."""
    generator = torch_generator(seed, _STEP, step)
    crops = draw_crops(
        frames,
        batch_size=config.batch_size,
        crop=config.crop,
        grid=state.autoencoder.config.downsampling,
        generator=generator,
    )
    pixels = crops.float() / 127.5 - 1
    moments = state.autoencoder.encode(pixels)
    decoded = state.autoencoder.decode(moments.sample(generator))
    l1 = functional.l1_loss(decoded, pixels)
    l2 = functional.mse_loss(decoded, pixels)
    kl = moments.kl().mean() / pixels[0].numel()
    loss = l1 + l2 + config.kl_weight * kl
    state.optimizer.zero_grad()
    torch.autograd.backward(loss)
    norm = float(torch.nn.utils.clip_grad_norm_(state.autoencoder.parameters(), config.grad_clip))
    parts = torch.stack([loss, l1, kl]).detach().double()
    if not (math.isfinite(norm) and bool(parts.isfinite().all())):
        raise TrainingDivergedError(
            f"autoencoder: loss {float(parts[0])} and gradient norm {norm} at step {step + 1}"
        )
    state.optimizer.step(lr=config.lr * factor, kernel_lr=config.kernel_lr * factor)
    return parts, norm


@torch.no_grad()
def _average(state: FitState, decay: float, step: int) -> None:
    keep = ema_decay_at(decay, step)
    for name, parameter in state.autoencoder.named_parameters():
        state.ema[name].lerp_(parameter, 1 - keep)
