"""How torchrun starts one node's share of a job that spans several."""

import hashlib
from typing import Final

from svd.config.compute import ClusterLauncherConfig
from svd.runtime.launch.launcher import RankJob

_PORTS: Final = (20000, 29999)  # below the ports that Linux hands out by itself


def node_arguments(
    job: RankJob, config: ClusterLauncherConfig, *, node_rank: str, address: str
) -> list[str]:
    """Return the arguments of `python` on one node.

    Args:
        job: What to start.
        config: Over how many nodes.
        node_rank: This node's number, or the variable that will hold it.
        address: Of the first node, or the variable that will hold it.
    """
    return [
        *("-m", "svd.runtime.torchrun"),
        *("--nnodes", str(config.nodes)),
        *("--nproc-per-node", str(job.num_processes // config.nodes)),
        *("--node-rank", node_rank),
        *("--master-addr", address, "--master-port", str(config.port or meeting_port(job.name))),
        *("--max-restarts", "0"),  # the scheduler starts all ranks anew
        *("--module", job.module, *job.arguments),
    ]


def meeting_port(name: str) -> int:
    """Return a port that follows from a job's name, so that every node computes the same."""
    low, high = _PORTS
    digest = hashlib.sha256(name.encode()).digest()
    return low + int.from_bytes(digest[:8], "big") % (high - low + 1)
