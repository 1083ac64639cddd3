"""Run some training jobs one after another in one set of ranks: `... -m this JOBS.json`.

Starting ranks takes longer than the jobs, so tests that compare many of them share a start.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad
from safetensors.torch import save_file

from svd.runtime.attached import die_with_parent
from svd.training.loop import trainer
from svd.training.loop.engine import Engine, init_ranks
from svd.training.loop.trainer import Trainer
from svd.training.stage.job import TrainingJob
from tests.unit.training.solo import StopAt


class Recording(Engine):
    """Writes down the whole gradient of its first step, as this rank has it."""

    folder: Path

    def update(self, lr: float) -> float:
        path = self.folder / f"gradient-{dist.get_rank()}.safetensors"
        if not path.exists():
            found = {name: safe_get_full_grad(p) for name, p in self._parameters.items()}
            save_file({n: g.detach().clone().contiguous() for n, g in found.items()}, path)
        return super().update(lr)


def main(jobs_file: Path) -> None:
    die_with_parent()
    device = init_ranks("cpu")
    trainer.Engine = Recording
    torch.set_num_threads(1)
    for job_file, stop_at in json.loads(jobs_file.read_text()):
        job = TrainingJob.parse(Path(job_file).read_text(), origin=job_file)
        Recording.folder = Path(job.run)
        Trainer(job, device, StopAt(stop_at)).run()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
