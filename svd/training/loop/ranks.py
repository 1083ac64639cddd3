"""What the ranks of a job say to each other beside gradients."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def gather_rows(values: Float[Tensor, " n"], device: torch.device) -> Float[Tensor, "ranks n"]:
    """Return every rank's values, in fp64 on the CPU; the same on every rank.

    All ranks must call this with equally many values.
    """
    mine = values.to(device=device, dtype=torch.float64)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    return torch.stack(rows).cpu()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on any rank; all ranks must call this."""
    return bool(gather_rows(torch.tensor([float(flag)]), device).any())


def share_of(count: int) -> range:
    """Return which of so many things this rank does; every rank does equally many.

    Where they do not divide, the last ranks do what others do too, for ranks must call the network
    together.
    """
    share = -(-count // dist.get_world_size())
    first = min(dist.get_rank() * share, count - share)
    return range(first, first + share)
