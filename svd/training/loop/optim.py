"""Which parameters a phase trains, which of them decay, and at what learning rate."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from svd.config.training import (
    OptimizerConfig,
    PhaseConfig,
    TrainableSet,
    TrainingStageConfig,
)
from svd.errors import ConfigError
from svd.models.adapters.lora import is_adapter_parameter
from svd.models.networks.unet import is_temporal, is_unused_with_one_token

ParameterSet = TrainableSet | Literal["adapter"]  # "adapter" is all that stage lora trains
_TIME_EMBEDDING = "time_embed"  # the MLP on c_noise, by its name in the UNet


def trained_set(config: TrainingStageConfig, phase: PhaseConfig) -> ParameterSet:
    """Return what a phase trains: an adapter alone where the stage has one."""
    return phase.trainable if config.adapter is None else "adapter"


def is_trainable(name: str, trainable: ParameterSet) -> bool:
    """Say whether a parameter of the UNet belongs to a set.

    "spatial" is what an image model has; "time-embedding" is what phase I-a of the paper trains
    alone after the change of preconditioning.
    """
    if trainable == "all":
        return True
    if trainable == "adapter":
        return is_adapter_parameter(name)
    if trainable == "time-embedding":
        return _TIME_EMBEDDING in name.split(".")
    return is_temporal(name) == (trainable == "temporal")


def freeze_others(module: nn.Module, trainable: ParameterSet, *, one_token: bool = False) -> int:
    """Let only a set of parameters require gradients; return how many numbers it has.

    Args:
        module: The network.
        trainable: Which parameters a phase may change.
        one_token: The context is a single token, so that queries and keys of cross-attention play
            no part: they are frozen too, or weight decay alone would move them.

    Raises:
        ConfigError: The module has no parameter of that set.
    """
    count = 0
    for name, parameter in module.named_parameters():
        is_dead = one_token and is_unused_with_one_token(name)
        parameter.requires_grad_(is_trainable(name, trainable) and not is_dead)
        count += parameter.numel() if parameter.requires_grad else 0
    if count == 0:
        raise ConfigError(f"trainable={trainable} names no parameter of this model")
    return count


def build_adamw(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters that require gradients.

    Only matrices and convolution kernels decay: pulling a norm's gain, a bias or a mix factor to
    zero is no prior anyone wants.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {
            "params": [p for p in trained if p.ndim >= 2],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def lr_at(phase: PhaseConfig, step: int) -> float:
    """Return the learning rate of an optimizer step, counted from 0 within the phase."""
    if step < phase.lr_warmup_steps:
        return phase.lr * (step + 1) / phase.lr_warmup_steps
    if phase.lr_decay == "constant":
        return phase.lr
    progress = (step - phase.lr_warmup_steps) / (phase.num_steps - phase.lr_warmup_steps)
    if phase.lr_decay == "linear":
        return phase.lr * (1 - progress)
    return phase.lr * 0.5 * (1 + math.cos(math.pi * progress))
