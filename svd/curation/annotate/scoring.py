"""What an annotator is: it looks at one clip through its frame bank and gives named scores."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from svd.curation.clip.bank import ClipFlow, FrameBank
from svd.types.annotation import Scorer
from svd.types.video import Clip


@dataclass(frozen=True)
class ClipView:
    """One clip as its annotators see it: sampled frames and flow, loaded when asked for.

    Attributes:
        clip: Its record.
        bank: Of its video.
        file: The clip itself, for what needs more pixels than the bank holds.
    """

    clip: Clip
    bank: FrameBank
    file: Path

    @cached_property
    def frames(self) -> list[int]:
        """Numbers of the sampled frames inside the clip."""
        return self.bank.frames_within(self.clip.span.start_frame, self.clip.span.stop_frame)

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        """The sampled frames, BGR."""
        return [self.bank.picture(frame) for frame in self.frames]

    @cached_property
    def flow(self) -> ClipFlow:
        """Flow of the pairs of sampled frames inside the clip."""
        return self.bank.flow_within(self.clip.span.start_frame, self.clip.span.stop_frame)

    def first_middle_last(self) -> list[np.ndarray]:
        """Return the first, middle and last sampled frame; fewer if there are fewer."""
        return [self.pictures[index] for index in three_of(len(self.pictures))]

    def large_pictures(self) -> list[np.ndarray]:
        """Return three frames spread over the clip in the largest size the bank holds."""
        span = self.clip.span
        stills = self.bank.stills_within(span.start_frame, span.stop_frame)
        if not stills:
            return self.first_middle_last()
        return [self.bank.still(stills[index]) for index in three_of(len(stills))]


def three_of(count: int) -> list[int]:
    """Return the first, middle and last of `count` positions, each once."""
    return sorted({0, count // 2, count - 1}) if count else []


@dataclass(frozen=True, slots=True)
class Measured:
    """What one annotator says of one clip; score names without the annotator's."""

    scores: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # score -> why there is none

    def named(self, scorer_name: str) -> "Measured":
        """Return the same with full names, "<scorer>.<score>", and rounded."""
        return Measured(
            scores={f"{scorer_name}.{key}": round(v, _DECIMALS) for key, v in self.scores.items()},
            missing={f"{scorer_name}.{key}": reason for key, reason in self.missing.items()},
        )


_DECIMALS = 6  # of stored scores: far below their noise, and it keeps files small


@runtime_checkable
class Annotator(Protocol):
    """Measures clips. Heavy models are loaded at the first call, once per process."""

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings that stand beside its scores."""

    def measure(self, view: ClipView) -> Measured:
        """Return the clip's scores."""
