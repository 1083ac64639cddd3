"""How long and how fast a network is fitted in one process."""

from typing import Self

from pydantic import Field, model_validator

from svd.config.base import Section


class FitSchedule(Section):
    """What the autoencoder's training and the temporal decoder's have in common."""

    num_steps: int = Field(ge=1)  # optimizer steps
    batch_size: int = Field(ge=1)  # examples per step
    crop: int = Field(ge=8)  # side of a square crop, pixels
    lr: float = Field(gt=0)  # peak learning rate of Adam
    lr_warmup_steps: int = Field(default=0, ge=0)  # linear rise; then a cosine to zero
    ema_decay: float = Field(ge=0, lt=1)  # of the weights, per step; the average is kept
    grad_clip: float = Field(default=1.0, gt=0)  # largest global L2 norm of the gradient
    checkpoint_every_steps: int = Field(ge=1)  # optimizer steps; what a kill can cost
    log_every_steps: int = Field(default=25, ge=1)  # optimizer steps per row of history.jsonl

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.num_steps and self.lr_warmup_steps >= self.num_steps:
            raise ValueError(
                f"training.lr_warmup_steps={self.lr_warmup_steps} must be less than "
                f"training.num_steps={self.num_steps}"
            )
        return self
