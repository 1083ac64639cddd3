"""Under which rules stages run: other tries, waits, and what they share."""

from typing import Any, Final

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from flows.errors import StageFailedError
from svd.types.stage import TRAINING_STAGES

RETRIES: Final = 2
RETRY_DELAYS_S: Final = [5.0, 30.0]  # a store that hiccups, a node that is drained

# Stages that use a GPU where there is one. Their tasks carry the tag, and flows.setup limits how
# many tasks of that tag run at once on a server, over all deployments.
GPU_TAG: Final = "gpu"
GPU_STAGES: Final = frozenset(
    {"autoencoder", "encode", "evaluate", "evaluate-finetunes", *TRAINING_STAGES}
)

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
    }
)


async def is_worth_retrying(
    task: Task[..., Any],  # noqa: ARG001  (Prefect's signature)
    run: TaskRun,  # noqa: ARG001
    state: State[Any],
) -> bool:
    """Retry crashes, signals and store faults; not bad parameters or diverged training."""
    try:
        await state.aresult()
    except StageFailedError as err:
        return err.kind not in PERMANENT
    except Exception:  # noqa: BLE001  (whatever else broke, one more try is cheap)
        return True
    return False
