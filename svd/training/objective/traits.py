"""What each objective asks of the network and of the data; which stage has which objective.

A further finetune is a section of the recipe, an entry in each of these two tables, and an
objective with its builder (`svd.training.objective.objective_builder`).
"""

from dataclasses import dataclass
from typing import Final, Literal

from svd.training.stage.job import ObjectiveName
from svd.types.stage import TrainingStage


@dataclass(frozen=True, slots=True)
class Traits:
    """How an objective conditions the network.

    Attributes:
        context: Where the tokens come from that cross-attention reads.
        cond_latents: Latents beside the noisy ones at the network's input, in multiples of the
            channels of one.
        has_mask: Whether some frames' latents are unknown: a mask embedding stands in for them,
            and one more input channel tells which.
        encodes_pictures: Whether a step encodes pictures, since noise is added before encoding.
        is_one_token: Whether the context is a single token, which leaves queries and keys of
            cross-attention without a gradient.
    """

    context: Literal["captions", "first-frame", "both-ends"]
    cond_latents: int
    has_mask: bool
    encodes_pictures: bool
    is_one_token: bool


_FROM_A_PICTURE: Final = Traits(
    context="first-frame",
    cond_latents=1,
    has_mask=False,
    encodes_pictures=True,
    is_one_token=True,
)
TRAITS: Final[dict[ObjectiveName, Traits]] = {
    "text-to-video": Traits(
        context="captions",
        cond_latents=0,
        has_mask=False,
        encodes_pictures=False,
        is_one_token=False,
    ),
    "image-to-video": _FROM_A_PICTURE,
    "orbit": _FROM_A_PICTURE,
    "interpolation": Traits(
        context="both-ends",
        cond_latents=1,
        has_mask=True,
        encodes_pictures=False,
        is_one_token=False,
    ),
}
OBJECTIVES: Final[dict[TrainingStage, ObjectiveName]] = {
    "pretrain-image": "text-to-video",
    "pretrain-video": "text-to-video",
    "finetune-t2v": "text-to-video",
    "finetune-i2v": "image-to-video",
    "finetune-interpolation": "interpolation",
    "lora@horizontal": "image-to-video",
    "lora@zoom": "image-to-video",
    "lora@static": "image-to-video",
    "finetune-multiview@video-prior": "orbit",
    "finetune-multiview@image-prior": "orbit",
    "finetune-multiview@scratch": "orbit",
}
