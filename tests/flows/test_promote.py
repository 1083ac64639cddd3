"""A version moves up only when somebody says so."""

import os
import threading
import time
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus

from flows.errors import NotApprovedError
from flows.promote import promote
from svd.errors import GateError
from tests.unit.registry.registry_project import Project, make_project

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.usefixtures("prefect_server"),
]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Project:
    os.environ["DVC_NO_ANALYTICS"] = "1"
    os.environ.pop("SVD_STORE", None)
    project = make_project(tmp_path_factory.mktemp("promotion"))
    project.train("good")
    assert project.register().status == "registered"
    return project


class Asked(threading.Thread):
    """Runs the flow, which waits for an answer."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(daemon=True)
        self.parameters = parameters
        self.outcome: object = None

    def run(self) -> None:
        try:
            self.outcome = promote(**self.parameters, wait_hours=0.1)
        except (NotApprovedError, GateError) as err:
            self.outcome = err

    def answer(self, **said: object) -> object:
        self.start()
        with get_client(sync_client=True) as client:
            run = self._paused(client)
            # Prefect pauses a run before it keeps what it asks: an answer in between is refused.
            for _ in range(300):
                answered = client.resume_flow_run(run.id, run_input=said)
                if answered.status is SetStateStatus.ACCEPT:
                    break
                time.sleep(0.2)
        self.join(timeout=120)
        assert not self.is_alive(), "the flow did not hear the answer"
        return self.outcome

    def _paused(self, client: Any) -> FlowRun:
        wanted = FlowRunFilter(state=FlowRunFilterState(type={"any_": [StateType.PAUSED]}))
        for _ in range(300):
            if runs := client.read_flow_runs(flow_run_filter=wanted):
                return runs[0]
            assert self.is_alive(), self.outcome
            time.sleep(0.2)
        raise AssertionError("the flow never paused")


def test_an_approval_gives_the_stage_and_names_who_said_so(
    registered: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(registered.root)
    asked = Asked(version="latest", stage="staging")
    outcome = asked.answer(approve=True, approver="Ann", note="looks well")
    assert outcome == "v0.1.0"
    catalog = registered.catalog
    assert catalog.in_stage("staging") == "v0.1.0"
    last = [event for event in catalog.events if event.stage == "staging"][-1]
    record = catalog.promotion(last)
    assert record is not None
    assert (record.approver, record.note) == ("Ann", "looks well")


def test_a_no_changes_nothing(registered: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(registered.root)
    outcome = Asked(version="v0.1.0", stage="production").answer(
        approve=False, approver="Bob", note="too blurred"
    )
    assert isinstance(outcome, NotApprovedError)
    assert "Bob said no" in str(outcome)
    assert registered.catalog.in_stage("production") is None


def test_the_card_is_there_for_whoever_is_asked() -> None:
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts()}
    assert "card-svd-i2v-v0-1-0" in keys
