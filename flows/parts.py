"""The parts of the whole chain, as subflows; each names its stages and holds no rule."""

from prefect import flow

from flows.policies import GPU_STAGES, GPU_TAG
from flows.stage import run_stage
from svd.types.stage import StageName


@flow(name="curate")
def curate(
    stages: list[StageName], refresh_sources: bool = False, timeout_hours: float | None = None
) -> None:
    """Raw videos to judged, annotated clips.

    Args:
        stages: Stages to bring up to date; the others are left alone.
        refresh_sources: List the sources anew even if the recipe did not change.
        timeout_hours: Of one stage; None is no limit, as in all parts.
    """
    _run(stages, timeout_hours, "ingest", force=refresh_sources)
    _run(stages, timeout_hours, "clip", "annotate", "filter")


@flow(name="train")
def train(stages: list[StageName], timeout_hours: float | None = None) -> None:
    """Autoencoder, latents, and the two pretraining stages of the denoiser."""
    _run(stages, timeout_hours, "autoencoder", "encode", "pretrain-image", "pretrain-video")


@flow(name="finetune")
def finetune(stages: list[StageName], timeout_hours: float | None = None) -> None:
    """The image-to-video model that the chain evaluates and registers."""
    _run(stages, timeout_hours, "finetune-i2v")


@flow(name="evaluate")
def evaluate(stages: list[StageName], timeout_hours: float | None = None) -> None:
    """Samples from held-out first frames, and their metrics."""
    _run(stages, timeout_hours, "evaluate")


@flow(name="derive")
def derive(stages: list[StageName], timeout_hours: float | None = None) -> None:
    """What is derived from the chain's models, and how each compares with what it came from."""
    _run(stages, timeout_hours, "finetune-t2v", "finetune-interpolation", "camera-motion")
    _run(stages, timeout_hours, "lora@horizontal", "lora@zoom", "lora@static")
    _run(stages, timeout_hours, "evaluate-finetunes")


@flow(name="release")
def release(stages: list[StageName]) -> None:
    """Gates and registration."""
    _run(stages, None, "register")


def _run(
    wanted: list[StageName], timeout_hours: float | None, *stages: StageName, force: bool = False
) -> None:
    for stage in stages:
        if stage in wanted:
            run_stage.with_options(
                tags=[GPU_TAG] if stage in GPU_STAGES else [],
                timeout_seconds=None if timeout_hours is None else timeout_hours * 3600,
            )(stage, force=force)
