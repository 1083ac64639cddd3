"""The stages of the graph, in order, and the record of one run of one."""

from typing import Final, Literal, get_args

from svd.errors import ConfigError
from svd.types.artifact import StageReport
from svd.types.base import Record

# The same names everywhere: dvc.yaml, params.yaml, `svd <stage>`, Prefect tasks, W&B runs. What
# stands behind `register` is derived from the main chain's models, if the recipe plans it.
StageName = Literal[
    "ingest",
    "clip",
    "annotate",
    "filter",
    "autoencoder",
    "encode",
    "pretrain-image",
    "pretrain-video",
    "finetune-i2v",
    "evaluate",
    "register",
    "finetune-t2v",
    "finetune-interpolation",
    "finetune-decoder",
    "camera-motion",
    "lora@horizontal",
    "lora@zoom",
    "lora@static",
    "orbits",
    "encode-orbits",
    "finetune-multiview@video-prior",
    "finetune-multiview@image-prior",
    "finetune-multiview@scratch",
    "evaluate-multiview",
    "evaluate-finetunes",
]
STAGES: Final[tuple[StageName, ...]] = get_args(StageName)
# The main chain, from raw video to a registered version.
CHAIN: Final = STAGES[: STAGES.index("register") + 1]

# Those that train the denoiser; their sections are alike.
TrainingStage = Literal[
    "pretrain-image",
    "pretrain-video",
    "finetune-t2v",
    "finetune-i2v",
    "finetune-interpolation",
    "lora@horizontal",
    "lora@zoom",
    "lora@static",
    "finetune-multiview@video-prior",
    "finetune-multiview@image-prior",
    "finetune-multiview@scratch",
]
TRAINING_STAGES: Final[tuple[TrainingStage, ...]] = get_args(TrainingStage)


def stages_between(first: StageName, last: StageName) -> list[StageName]:
    """Return the stages from first to last, both included.

    Raises:
        ConfigError: The last comes before the first.
    """
    start, stop = STAGES.index(first), STAGES.index(last)
    if stop < start:
        raise ConfigError(f"to_stage={last} comes before from_stage={first}")
    return list(STAGES[start : stop + 1])


class StageRun(Record):
    """.svd/stages/<stage>.json: what the last run of a stage said; DVC does not version it."""

    fingerprint: str  # names the live state, .runs/<fingerprint>/
    pipeline_run: str | None  # groups the stages of one pipeline run in W&B
    started_at: str  # ISO 8601, UTC
    wall_s: float
    cpu_s: float | None = None  # processor seconds of the stage and its workers of curation
    gpu_s: float = 0.0  # for which the stage or its workers of curation held a GPU
    report: StageReport
