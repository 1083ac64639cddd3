"""Who holds which stretch of which parameter, and how the pieces are put together.

An optimizer that shards keeps its fp32 master weights in a few flat tensors per rank; a fragment
is a stretch of one parameter within one of them. Everything that must outlive a change of world
size or ZeRO stage (checkpoints, averaged weights) speaks in fragments.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fragment:
    """Elements [start, start + numel) of a flattened parameter, held by this rank.

    Attributes:
        name: The parameter.
        start: First element within the flattened parameter.
        numel: Elements held.
        flat: Place of the flat tensor that holds them.
        offset: First element within it.
    """

    name: str
    start: int
    numel: int
    flat: int
    offset: int

    def read(self, flats: Sequence[Tensor]) -> Float[Tensor, " n"]:
        """Return the elements; a view where the flat tensor's layout allows one."""
        return flats[self.flat].reshape(-1)[self.offset : self.offset + self.numel]

    def write(self, flats: Sequence[Tensor], values: Float[Tensor, " n"]) -> None:
        """Overwrite the elements."""
        flat = flats[self.flat]
        if flat.ndim == 1:
            flat[self.offset : self.offset + self.numel].copy_(values)
        else:  # an unsharded parameter, of any memory layout: its one fragment is all of it
            flat.copy_(values.view(flat.shape))


@dataclass(frozen=True, slots=True)
class Partition:
    """How the trained parameters lie over the ranks.

    Attributes:
        shapes: Every trained parameter's shape, in the module's order; equal on all ranks.
        fragments: What this rank holds.
        is_sharded: False if every rank holds everything.
        device: On which ranks exchange tensors. The flat ones may lie elsewhere, as those of an
            optimizer in CPU memory do.
    """

    shapes: Mapping[str, torch.Size]
    fragments: tuple[Fragment, ...]
    is_sharded: bool
    device: torch.device

    def gather(self, flats: Sequence[Tensor]) -> Iterator[tuple[str, Float[Tensor, "..."]]]:
        """Yield each parameter put together from all ranks' fragments, one at a time.

        All ranks must iterate to the end; each gets every parameter. Memory is bounded by the
        largest one.
        """
        held: dict[str, list[Fragment]] = {}
        for fragment in self.fragments:
            held.setdefault(fragment.name, []).append(fragment)
        for name, shape in self.shapes.items():
            whole = torch.zeros(shape.numel(), dtype=torch.float32, device=self.device)
            for fragment in held.get(name, ()):
                stop = fragment.start + fragment.numel
                whole[fragment.start : stop].copy_(fragment.read(flats))
            if self.is_sharded:
                dist.all_reduce(whole)
            yield name, whole.view(shape)
