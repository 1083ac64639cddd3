"""What the temporal decoder's training holds: both networks, their optimizers, the history."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.decoder import DecoderTraining
from svd.errors import TrainingDivergedError
from svd.models.autoencoder import Autoencoder
from svd.models.discriminator import PatchDiscriminator, new_discriminator
from svd.models.temporal_decoder import (
    TemporalDecoder,
    from_image_decoder,
    is_temporal_decoder_layer,
)
from svd.models.weights import open_weights, save_state
from svd.runtime.seed import torch_generator
from svd.training.ema import ema_decay_at
from svd.types.base import Record

# What a draw decides; the second part of its key, after the seed.
_DISCRIMINATOR, _BRANCHES = 34, 35
# Of both Adams; Esser 2021's code, as the release's autoencoders are trained.
_BETAS = (0.5, 0.9)
_MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq", "count": "step"}  # Adam's, by our names

N = TypeVar("N", bound=nn.Module)


class DecoderRow(Record):
    """One row of history.jsonl: means since the row before."""

    step: int  # optimizer steps made
    examples_seen: int  # clips trained on
    loss: float
    l1: float  # mean absolute error, of pixels in -1..1
    perceptual: float  # LPIPS
    adversarial: float  # minus the discriminator's opinion of decoded clips
    discriminator: float  # hinge loss; 1 is a coin's
    grad_norm: float  # of the last step, before clipping
    lr: float  # of the last step


class Learner(Generic[N]):
    """A network with its optimizer; what is frozen has no part in it."""

    def __init__(self, network: N) -> None:
        self.network = network
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        # The rate is set before each step. foreach=False: one way of computing, whatever the
        # tensors' memory layout.
        self._adam = torch.optim.Adam(self.trained.values(), lr=0.0, betas=_BETAS, foreach=False)

    def step(self, loss: Float[Tensor, ""], *, lr: float, grad_clip: float) -> float:
        """Make one step down a loss; return the gradient's norm before clipping.

        Raises:
            TrainingDivergedError: Loss or gradient is not finite; raised before the update.
        """
        parameters = list(self.trained.values())
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, grad_clip))
        value = loss.item()
        if not (math.isfinite(norm) and math.isfinite(value)):
            raise TrainingDivergedError(
                f"finetune-decoder: loss {value} and gradient norm {norm} of "
                f"{type(self.network).__name__}"
            )
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and moments, by name; a parameter that never learned has no moments."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.trained.items():
            tensors[f"weight.{name}"] = parameter.detach()
            moments = self._adam.state[parameter]
            tensors |= {f"{ours}.{name}": moments[key] for ours, key in _MOMENTS.items() if moments}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, in the memory layout of an unbroken run."""
        for name, parameter in self.trained.items():
            parameter.copy_(tensors[f"weight.{name}"])
            if f"mean.{name}" in tensors:
                self._adam.state[parameter] = {
                    "step": tensors[f"count.{name}"],
                    "exp_avg": torch.empty_like(parameter).copy_(tensors[f"mean.{name}"]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"square.{name}"]),
                }


@dataclass(slots=True)
class DecoderState:
    """All that a resumed run needs.

    Attributes:
        decoder: What is trained.
        opponent: The discriminator; None without adversary.
        ema: The decoder's running average, by name.
        step: Optimizer steps made.
        rows: History so far.
        window: Sums of (loss, l1, perceptual, adversarial, discriminator) since the last row.
    """

    decoder: Learner[TemporalDecoder]
    opponent: Learner[PatchDiscriminator] | None
    ema: dict[str, Tensor]
    step: int
    rows: list[DecoderRow]
    window: Float[Tensor, "5"]

    def add(self, parts: Float[Tensor, "5"], *, ema_decay: float) -> None:
        """Count a finished step: its losses, and the weights it led to."""
        self.window += parts
        keep = ema_decay_at(ema_decay, self.step)
        with torch.no_grad():
            for name, parameter in self.decoder.trained.items():
                self.ema[name].lerp_(parameter, 1 - keep)
        self.step += 1


def start(autoencoder: Autoencoder, config: DecoderTraining, *, seed: int) -> DecoderState:
    """Return the state before the first step: the image decoder, which does not look over time."""
    device = autoencoder.quant_conv.weight.device
    decoder = from_image_decoder(autoencoder, torch_generator(seed, _BRANCHES)).to(device)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(config.trainable == "all" or is_temporal_decoder_layer(name))
    opponent = None
    if config.adversary is not None:
        network = new_discriminator(
            channels=config.adversary.channels,
            num_layers=config.adversary.num_layers,
            generator=torch_generator(seed, _DISCRIMINATOR),
        )
        opponent = Learner(network.to(device))
    learner = Learner(decoder)
    return DecoderState(
        decoder=learner,
        opponent=opponent,
        ema={name: p.detach().clone() for name, p in learner.trained.items()},
        step=0,
        rows=[],
        window=torch.zeros(5, dtype=torch.float64),
    )


def save_decoder_state(state: DecoderState, path: Path) -> None:
    """Write the state, atomically."""
    tensors = {"window": state.window} | _prefixed("ema.", state.ema)
    tensors |= _prefixed("decoder.", state.decoder.tensors())
    if state.opponent is not None:
        tensors |= _prefixed("opponent.", state.opponent.tensors())
    rows = json.dumps([row.model_dump(mode="json") for row in state.rows])
    save_state(tensors, path, metadata={"step": str(state.step), "rows": rows})


def load_decoder_state(state: DecoderState, path: Path) -> None:
    """Fill the state from a checkpoint of the same run.

    Raises:
        CheckpointError: The file is not whole.
    """
    with open_weights(path) as saved:
        state.step = int(saved.metadata["step"])
        rows = json.loads(saved.metadata["rows"])
        tensors = dict(saved)
    state.rows = [DecoderRow.model_validate_json(json.dumps(row)) for row in rows]
    state.window = tensors["window"]
    for name, tensor in state.ema.items():
        tensor.copy_(tensors[f"ema.{name}"])
    state.decoder.restore(_below("decoder.", tensors))
    if state.opponent is not None:
        state.opponent.restore(_below("opponent.", tensors))


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
