"""The parts of the whole chain, as subflows; each names its stages and holds no rule."""

from prefect import flow

from flows.stage import run_stage
from svd.types.stage import StageName


@flow(name="curate")
def curate(stages: list[StageName], refresh_sources: bool = False) -> None:
    """Raw videos to judged, annotated clips.

    Args:
        stages: Stages to bring up to date; the others are left alone.
        refresh_sources: List the sources anew even if the recipe did not change.
    """
    if "ingest" in stages:
        run_stage("ingest", force=refresh_sources)
    _run(stages, "clip", "annotate", "filter")


@flow(name="train")
def train(stages: list[StageName]) -> None:
    """Autoencoder, latents, and the two pretraining stages of the denoiser."""
    _run(stages, "autoencoder", "encode", "pretrain-image", "pretrain-video")


@flow(name="finetune")
def finetune(stages: list[StageName]) -> None:
    """What is derived from the base model."""
    _run(stages, "finetune-t2v", "finetune-i2v")


@flow(name="evaluate")
def evaluate(stages: list[StageName]) -> None:
    """Samples from held-out first frames, and their metrics."""
    _run(stages, "evaluate")


@flow(name="release")
def release(stages: list[StageName]) -> None:
    """Gates and registration."""
    _run(stages, "register")


def _run(wanted: list[StageName], *stages: StageName) -> None:
    for stage in stages:
        if stage in wanted:
            run_stage(stage)
