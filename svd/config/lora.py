"""Which low-rank adapters are trained: their width, their strength, and where they sit."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section

# Projections of the temporal transformer blocks: attn1 attends over the frames, attn2 to the
# context. With one image token queries and keys of attn2 play no part, so they are no targets.
LoraTarget = Literal[
    "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out", "attn2.to_v", "attn2.to_out"
]


class LoraConfig(Section):
    """A low-rank adapter (Hu 2021) in the temporal attention blocks.

    The paper gives rank and place ("inside the temporal attention blocks", section 4.3.1); the
    projections and alpha are ours: all four of the attention over time, at full strength.
    """

    rank: int = Field(default=16, ge=1, le=1024)  # paper, section 4.3.1
    alpha: float = Field(default=16.0, gt=0)  # the adapter counts alpha / rank times
    targets: tuple[LoraTarget, ...] = Field(
        default=("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out"), min_length=1
    )

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets names one twice: {', '.join(self.targets)}")
        return self
