"""The whole chain: `prefect deployment run svd/full-pipeline`."""

from prefect import flow

from flows.beside import side_by_side
from flows.lock_order import order_lock
from flows.outlook import look_ahead
from flows.parts import curate, derive, evaluate, finetune, release, train
from flows.report import publish_report
from flows.run import PipelineRun, find_place
from svd.types.stage import StageName, stages_between


@flow(name="svd")
def full_pipeline(
    from_stage: StageName = "ingest",
    to_stage: StageName = "evaluate-finetunes",
    recipe: str | None = None,
    source: str | None = None,
    source_licence: str = "",
    store: str | None = None,
    checkout: str | None = None,
    refresh_sources: bool = False,
    stage_timeout_hours: float | None = None,
) -> str:
    """Take raw video to a registered model; stages that are up to date are skipped.

    Args:
        from_stage: First stage to bring up to date.
        to_stage: Last stage to bring up to date.
        recipe: A name below recipes/; None is params.yaml. Another recipe than the one in force
            runs in a checkout of its own below .svd/checkouts/, and leaves this one alone.
        source: s3://bucket/prefix, a folder or a list file, in place of the recipe's sources.
        source_licence: Which licence the videos of `source` have.
        store: Where bytes rest, s3://bucket/prefix or a folder; None is SVD_STORE of the worker.
        checkout: Run in a checkout of this name below .svd/checkouts/, whatever the recipe.
        refresh_sources: List the sources anew even if the recipe did not change.
        stage_timeout_hours: A stage that takes longer is stopped in good order; None: never.

    Returns:
        The folder in which it ran.
    """
    home, there = find_place(recipe, source, source_licence, checkout)
    run = PipelineRun(
        home=str(home.root),
        root=str(there.root),
        stages=stages_between(from_stage, to_stage),
        store=store,
        timeout_hours=stage_timeout_hours,
        refresh_sources=refresh_sources,
    )
    run = look_ahead(run)
    curate(run)
    train(run)
    finetune(run)
    side_by_side(lambda: (evaluate(run), release(run)), lambda: derive(run))
    if not set(run.stages) <= set(run.unchanged):
        order_lock(there)
    publish_report(run)
    return run.root


if __name__ == "__main__":
    full_pipeline()
