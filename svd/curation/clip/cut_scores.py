"""How well found cuts agree with known ones: precision and recall, hard and gradual apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from svd.types.truth import TrueCut
from svd.types.video import Cut

HARD_TOLERANCE = 1  # frames
_MIN_COVER = 0.5  # of a transition's frames that must agree


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counts of one kind of cut; they add up over videos."""

    num_true: int = 0
    num_found: int = 0
    num_recalled: int = 0  # of the true ones
    num_right: int = 0  # of the found ones

    @property
    def recall(self) -> float:
        """Share of the true cuts that were found; 1 if there are none."""
        return self.num_recalled / self.num_true if self.num_true else 1.0

    @property
    def precision(self) -> float:
        """Share of the found cuts that are true; 1 if none was found."""
        return self.num_right / self.num_found if self.num_found else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.num_true + other.num_true,
            self.num_found + other.num_found,
            self.num_recalled + other.num_recalled,
            self.num_right + other.num_right,
        )


def compare_hard(
    found: Iterable[Cut], truth: Iterable[TrueCut], *, tolerance: int = HARD_TOLERANCE
) -> Agreement:
    """Compare hard cuts, each with at most one of the other side, at most `tolerance` apart."""
    left = sorted(cut.start_frame for cut in found if cut.kind == "hard")
    wanted = sorted(cut.start_frame for cut in truth if cut.kind == "hard")
    num_found, num_matched = len(left), 0
    for frame in wanted:
        while left and left[0] < frame - tolerance:
            left.pop(0)
        if left and left[0] <= frame + tolerance:
            left.pop(0)
            num_matched += 1
    return Agreement(len(wanted), num_found, num_matched, num_matched)


def compare_gradual(found: Iterable[Cut], truth: Iterable[TrueCut]) -> Agreement:
    """Compare fades and dissolves as stretches of frames, whichever of the two they are called.

    A true one is recalled if the found ones hold half of its frames; a found one is right if half
    of its frames lie in true ones.
    """
    ours = [(cut.start_frame, cut.stop_frame) for cut in found if cut.kind != "hard"]
    theirs = [(cut.start_frame, cut.stop_frame) for cut in truth if cut.kind != "hard"]
    return Agreement(
        num_true=len(theirs),
        num_found=len(ours),
        num_recalled=sum(_is_covered(span, ours) for span in theirs),
        num_right=sum(_is_covered(span, theirs) for span in ours),
    )


def _is_covered(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    start, stop = span
    shared = sum(max(0, min(stop, high) - max(start, low)) for low, high in others)
    return shared >= _MIN_COVER * (stop - start)
