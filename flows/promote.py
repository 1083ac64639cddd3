"""A person lets a version move up: the run pauses until somebody has answered."""

from prefect import flow, get_run_logger, pause_flow_run, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.input import RunInput

from flows.errors import NotApprovedError
from svd.registry.card import render_card
from svd.registry.catalog import Catalog
from svd.registry.mirror import mirror_stage
from svd.registry.publish import promote as give_stage
from svd.runtime.workspace import Workspace
from svd.types.version import StageLabel


class Approval(RunInput):
    """What the person answers, in the UI or through the API."""

    approve: bool
    approver: str
    note: str = ""


@flow(name="promote")
def promote(
    version: str = "latest",
    stage: StageLabel = "production",
    model: str = "svd-i2v",
    wait_hours: float = 72.0,
) -> str:
    """Show a version's card, wait for an approval, give it the stage; return its number.

    Args:
        version: "v0.1.2", a stage that holds it, or "latest".
        stage: The stage to give.
        model: The model's name.
        wait_hours: After this without an answer the run fails and nothing has changed.

    Raises:
        NotApprovedError: The answer was no.
        GateError: A gate does not pass, or the stage has changed since the card was shown.
    """
    seen = Catalog.read(Workspace.find().root, model)
    number = seen.resolve(version)
    publish_card(seen, number)
    question = f"Give **{stage}** to {model} {number}, in place of {seen.in_stage(stage)}?"
    answer = pause_flow_run(
        wait_for_input=Approval.with_initial_data(description=question, approve=False, approver=""),
        timeout=int(wait_hours * 3600),
        poll_interval=2,
    )
    if not answer.approve:
        raise NotApprovedError(f"{answer.approver} said no to {model} {number}: {answer.note}")
    done = give_stage(seen, number, stage, approver=answer.approver, note=answer.note)
    mirror_stage(done)
    get_run_logger().info("%s %s is in %s", model, done.version, stage)
    return done.version


@task(task_run_name="card of {number}", cache_policy=NO_CACHE)
def publish_card(catalog: Catalog, number: str) -> None:
    """Leave the model card as an artifact, for whoever is asked."""
    card = render_card(catalog.record(number), stages=catalog.stages_of(number))
    key = f"card-{catalog.name}-{number.replace('.', '-')}".lower()
    create_markdown_artifact(key=key, markdown=card, description=f"{catalog.name} {number}")
