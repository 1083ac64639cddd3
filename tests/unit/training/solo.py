"""A whole training job in the test process, which is its only rank."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
import torch.distributed as dist

from svd.runtime.workspace import Workspace
from svd.training.loop.engine import init_ranks
from svd.training.loop.trainer import Trainer
from svd.training.stage.job import RunFolder, TrainingJob
from tests.unit.training.world import DENOISER, stage_config


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


@contextmanager
def only_rank() -> Iterator[None]:
    """Be a job of one rank under DeepSpeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        init_ranks("cpu")
        yield
        deepspeed.comm.destroy_process_group()  # torch's would leave DeepSpeed with the old group


def make_job(
    world: Workspace, *, name: str = "run", data: str | None = None, **changes: Any
) -> TrainingJob:
    """Write the job of an image-to-video stage; `changes` are those of `stage_config`."""
    unet = DENOISER.unet.model_copy(update={"in_channels": 8})
    job = TrainingJob(
        stage="finetune-i2v",
        objective="image-to-video",
        seed=3,
        config=stage_config(**changes),
        denoiser=DENOISER.model_copy(update={"unet": unet}),
        data=data or str(world.latents),
        autoencoder=str(world.model("autoencoder")),
        init=None,
        run=str(world.runs / name),
    )
    folder = RunFolder(world.runs / name)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.job.write_text(job.canonical_json())
    return job


def train(job: TrainingJob, *, stop_at: int | None = None) -> RunFolder:
    """Run the job, or its beginning."""
    Trainer(job, torch.device("cpu"), StopAt(stop_at)).run()
    return RunFolder(Path(job.run))
