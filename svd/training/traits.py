"""What each objective asks of the network and of the data; which stage has which objective.

A further finetune is a section of the recipe, an entry in each of these two tables, and an
objective with its builder (`svd.training.objective_builder`).
"""

from dataclasses import dataclass
from typing import Final, Literal

from svd.training.job import ObjectiveName
from svd.types.stage import TrainingStage


@dataclass(frozen=True, slots=True)
class Traits:
    """How an objective conditions the network.

    Attributes:
        context: Where the tokens come from that cross-attention reads.
        cond_latents: Latents beside the noisy ones at the network's input, in multiples of the
            channels of one.
        is_one_token: Whether the context is a single token, which leaves queries and keys of
            cross-attention without a gradient.
    """

    context: Literal["captions", "first-frame"]
    cond_latents: int
    is_one_token: bool

    @property
    def needs_autoencoder(self) -> bool:
        """Whether steps encode pictures: the noise of cond_aug is added before encoding."""
        return self.cond_latents > 0


TRAITS: Final[dict[ObjectiveName, Traits]] = {
    "text-to-video": Traits(context="captions", cond_latents=0, is_one_token=False),
    "image-to-video": Traits(context="first-frame", cond_latents=1, is_one_token=True),
}
OBJECTIVES: Final[dict[TrainingStage, ObjectiveName]] = {
    "pretrain-image": "text-to-video",
    "pretrain-video": "text-to-video",
    "finetune-t2v": "text-to-video",
    "finetune-i2v": "image-to-video",
}
