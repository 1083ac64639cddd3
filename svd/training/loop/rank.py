"""What every rank of a job runs: `python -m svd.training.loop.rank .runs/<name>/job.json`."""

import logging
import sys
from pathlib import Path

from svd.errors import ConfigError, StoreError, SvdError
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
        _check_world_size(job, dist.get_world_size())
        outcome = Trainer(job, device, stop).run()
    except (SvdError, OSError) as err:
        # A disk that is full or gone says so in an OSError.
        kind = type(err)
        if not isinstance(err, SvdError):
            kind = StoreError
            logging.getLogger(__name__).warning("reading or writing failed", exc_info=err)
        _tell(folder, Outcome(kind="failed", error=kind.__name__, message=str(err)), rank=rank)
        return 1
    if rank == 0:
        _tell(folder, outcome, rank=rank)
    dist.barrier()
    dist.destroy_process_group()
    return 0


def _check_world_size(job: TrainingJob, world_size: int) -> None:
    """Refuse ranks that were started for another layout: of a job submitted before a change."""
    wanted = job.config.compute.num_processes
    if world_size != wanted:
        raise ConfigError(
            f"{job.stage}: {world_size} ranks were started, but compute.num_processes={wanted}: "
            "stop the job that was submitted before the change, and run the stage again"
        )


def _tell(folder: RunFolder, outcome: Outcome, *, rank: int) -> None:
    mine = folder.outcome.with_name(f"outcome-{rank:05d}.json")  # many ranks may fail at once
    write_records(mine, [outcome])
    mine.replace(folder.outcome)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
