"""What a pool of workers is to its user: items go in, results or faults come out."""

from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

T_contra = TypeVar("T_contra", contravariant=True)
R = TypeVar("R")

Lane = Literal["cpu", "gpu"]  # workers without and with a GPU of their own


class Fault(NamedTuple):
    """Why an item gave no result."""

    reason: Literal["timeout", "crashed"]
    detail: str  # a sentence for a person


class Done(NamedTuple, Generic[R]):
    """A finished item."""

    ticket: int
    result: R | Fault


class Pool(Protocol[T_contra, R]):
    """Workers that each do one item at a time; one that hangs or dies costs only its item."""

    def has_room(self, lane: Lane) -> bool:
        """Return whether another item could start now."""

    def start(self, ticket: int, item: T_contra, *, lane: Lane, timeout_s: float) -> None:
        """Begin with an item where there is room; its time runs from when a worker takes it up.

        Args:
            ticket: Names the item in `wait`.
            item: What to call the pool's function with.
            lane: Which workers may take it.
            timeout_s: Seconds.
        """

    def wait(self) -> list[Done[R]]:
        """Wait until items have finished and return them; [] if none is at work.

        Raises:
            Exception: The first one the pool's function raised.
        """

    def close(self) -> None:
        """End all workers, whatever they are doing."""
