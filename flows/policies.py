"""Under which rules stages run: other tries, waits, and what they share."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency

from flows.errors import StageFailedError
from flows.processes import is_cancelled
from svd.types.stage import TRAINING_STAGES

RETRIES: Final = 2
RETRY_DELAYS_S: Final = [5.0, 30.0]  # a store that hiccups, a node that is drained

# Stages that use a GPU where there is one. Their tasks carry this tag, and flows.setup makes a
# limit of this name: how many of them run at once on a server, over all deployments.
GPU: Final = "gpu"
GPU_STAGES: Final = frozenset(
    {
        "autoencoder",
        "encode",
        "evaluate",
        "finetune-decoder",
        "evaluate-finetunes",
        "encode-orbits",
        "evaluate-multiview",
        *TRAINING_STAGES,
    }
)
GPU_JOBS: Final = int(os.environ.get("SVD_GPU_JOBS", "1"))
# The same limit within a run, which may have no server that knows of it.
GPU_SLOTS: Final = threading.BoundedSemaphore(GPU_JOBS)
# A run that was killed keeps its place this long. A limit by Prefect's tags would keep it for ever.
_LEASE_S: Final = 60.0
# A server on SQLite that is still writing down how the task before has ended answers 503 (locked),
# upon which Prefect's client waits 2 s. After this long none of 8 tries was answered so.
_SETTLE_S: Final = 0.7

# Words with which svd reports what a second try cannot mend (see svd/errors.py).
PERMANENT: Final = frozenset(
    {
        "ConfigError",
        "MissingInputError",
        "IntegrityError",
        "CheckpointError",
        "TrainingDivergedError",
        "BudgetError",
        "GateError",
        "timeout",  # the limit is one of the stage, not of a try
    }
)


@contextlib.contextmanager
def gpu_turn(stage: str) -> Iterator[None]:
    """Wait for a place among the stages that may use a GPU; others need none."""
    if stage not in GPU_STAGES:
        yield
        return
    time.sleep(_SETTLE_S)
    with GPU_SLOTS, concurrency(GPU, lease_duration=_LEASE_S):
        yield


async def is_worth_retrying(
    task: Task[..., Any],  # noqa: ARG001  (Prefect's signature)
    run: TaskRun,  # noqa: ARG001
    state: State[Any],
) -> bool:
    """Retry crashes, signals and store faults; not bad parameters or diverged training."""
    if is_cancelled():
        return False
    try:
        await state.aresult()
    except StageFailedError as err:
        return err.kind not in PERMANENT
    except Exception:  # noqa: BLE001  (whatever else broke, one more try is cheap)
        return True
    return False
