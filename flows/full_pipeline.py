"""The whole chain: `prefect deployment run svd/full-pipeline`."""

from prefect import flow

from flows.parts import curate, derive, evaluate, finetune, release, train
from flows.report import publish_report
from svd.types.stage import StageName, stages_between


@flow(name="svd")
def full_pipeline(
    from_stage: StageName = "ingest",
    to_stage: StageName = "register",
    refresh_sources: bool = False,
    stage_timeout_hours: float | None = None,
) -> None:
    """Take raw video to a registered model; stages that are up to date are skipped.

    Args:
        from_stage: First stage to bring up to date.
        to_stage: Last stage to bring up to date.
        refresh_sources: List the sources anew even if the recipe did not change.
        stage_timeout_hours: A stage that takes longer is stopped in good order; None: never.
    """
    stages = stages_between(from_stage, to_stage)
    curate(stages, refresh_sources, stage_timeout_hours)
    train(stages, stage_timeout_hours)
    finetune(stages, stage_timeout_hours)
    evaluate(stages, stage_timeout_hours)
    release(stages)
    derive(stages, stage_timeout_hours)
    publish_report()


if __name__ == "__main__":
    full_pipeline()
