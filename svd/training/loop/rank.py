"""What every rank of a job runs: `python -m svd.training.loop.rank .runs/<name>/job.json`."""

import logging
import sys
from pathlib import Path

from svd.errors import SvdError
from svd.runtime.attached import die_with_parent
from svd.runtime.log import set_up_logging
from svd.training.loop.stop import SignalledStop
from svd.training.stage.job import Outcome, RunFolder, TrainingJob
from svd.types.base import write_records


def main(job_file: Path) -> int:
    """Run this rank; return the exit code."""
    die_with_parent()
    stop = SignalledStop()  # before the imports below, which take seconds
    import torch
    import torch.distributed as dist

    from svd.training.loop.engine import init_ranks
    from svd.training.loop.trainer import Trainer

    job = TrainingJob.parse(job_file.read_text(encoding="utf-8"), origin=str(job_file))
    device = init_ranks(job.config.compute.device)
    set_up_logging()
    rank, folder = dist.get_rank(), RunFolder(Path(job.run))
    if rank > 0:
        logging.getLogger("svd").setLevel(logging.WARNING)
    torch.set_num_threads(job.config.compute.threads_per_process)
    try:
        outcome = Trainer(job, device, stop).run()
    except SvdError as err:
        failure = Outcome(kind="failed", error=type(err).__name__, message=str(err))
        _tell(folder, failure, rank=rank)
        return 1
    if rank == 0:
        _tell(folder, outcome, rank=rank)
    dist.barrier()
    dist.destroy_process_group()
    return 0


def _tell(folder: RunFolder, outcome: Outcome, *, rank: int) -> None:
    mine = folder.outcome.with_name(f"outcome-{rank:05d}.json")  # many ranks may fail at once
    write_records(mine, [outcome])
    mine.replace(folder.outcome)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
