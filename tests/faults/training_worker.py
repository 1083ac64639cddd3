"""Run some training jobs one after another in one set of ranks: `... -m this JOBS.json`.

Starting ranks takes longer than the jobs, so tests that compare many of them share a start.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from svd.runtime.attached import die_with_parent
from svd.training.engine import init_ranks
from svd.training.job import TrainingJob
from svd.training.trainer import Trainer


class StopAt:
    """Asks to stop in the n-th step; never if n is None."""

    def __init__(self, step: int | None) -> None:
        self._left = step

    @property
    def asked(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left == 0


def main(jobs_file: Path) -> None:
    die_with_parent()
    device = init_ranks("cpu")
    torch.set_num_threads(1)
    for job_file, stop_at in json.loads(jobs_file.read_text()):
        job = TrainingJob.parse(Path(job_file).read_text(), origin=job_file)
        Trainer(job, device, StopAt(stop_at)).run()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
