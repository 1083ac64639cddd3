"""Processor and GPU time that workers of this process have spent, wherever they ran.

os.times() counts children of this process only once they have ended, and workers are not even its
children: a fork server starts them, or Ray on another machine.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Spent:
    """A tally; the engine adds to it, whoever reports a stage reads it."""

    cpu_s: float = 0.0  # processor seconds inside units of work
    gpu_s: float = 0.0  # seconds for which units held a GPU


WORKERS = Spent()
