"""The parts of the whole chain, as subflows; each names its stages and holds no rule."""

from collections.abc import Sequence
from typing import Any, Final

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait

from flows.policies import GPU, GPU_STAGES
from flows.processes import end_all
from flows.run import PipelineRun
from flows.stage import note_unplanned, run_stage
from flows.units import Unit, order_units
from svd.runtime.graph import read_graph
from svd.types.stage import CHAIN, STAGES, StageName

# What stands behind the chain, without the two that have their place among its parts.
DERIVED: Final = tuple(
    stage for stage in STAGES if stage not in {*CHAIN, "camera-motion", "finetune-t2v"}
)


@flow(name="curate")
def curate(run: PipelineRun) -> None:
    """Raw videos to judged, annotated clips; how the camera moves in them is found meanwhile."""
    _bring_up_to_date(run, "ingest", force=run.refresh_sources)
    _bring_up_to_date(run, "clip", "annotate", "filter", "camera-motion")


@flow(name="train")
def train(run: PipelineRun) -> None:
    """Autoencoder, latents, and the two pretraining stages of the denoiser."""
    _bring_up_to_date(run, "autoencoder", "encode", "pretrain-image", "pretrain-video")


@flow(name="finetune")
def finetune(run: PipelineRun) -> None:
    """The image-to-video model that the chain evaluates and registers, beside text-to-video."""
    _bring_up_to_date(run, "finetune-i2v", "finetune-t2v")


@flow(name="evaluate")
def evaluate(run: PipelineRun) -> None:
    """Samples from held-out first frames, and their metrics."""
    _bring_up_to_date(run, "evaluate")


@flow(name="derive")
def derive(run: PipelineRun) -> None:
    """What is derived from the chain's models, and how each compares with what it came from."""
    _bring_up_to_date(run, *DERIVED)


@flow(name="release")
def release(run: PipelineRun) -> None:
    """Gates and registration."""
    _bring_up_to_date(run, "register")


def _bring_up_to_date(run: PipelineRun, *stages: StageName, force: bool = False) -> None:
    """Start each stage that is wanted once those before it are done; wait for all of them.

    Raises:
        StageFailedError: A stage failed; the others have ended nevertheless.
    """
    started: dict[Unit, PrefectFuture[State[Any]]] = {}
    for unit, before in order_units(run, stages, read_graph(run.workspace.root)).items():
        started[unit] = _submit(unit, run, [started[one] for one in before], force=force)
    try:
        wait(list(started.values()))
    except BaseException:  # this run is cancelled; a signal reaches the main thread only
        end_all()
        raise
    for future in started.values():
        future.result()


def _submit(
    unit: Unit, run: PipelineRun, before: Sequence[PrefectFuture[State[Any]]], *, force: bool
) -> PrefectFuture[State[Any]]:
    stage = unit[0]
    if stage in run.unplanned:
        return note_unplanned.submit(unit, run, wait_for=before, return_state=False)
    task = run_stage.with_options(tags=[GPU] if stage in GPU_STAGES else [])
    return task.submit(stage, run, force=force, wait_for=before, return_state=False)
