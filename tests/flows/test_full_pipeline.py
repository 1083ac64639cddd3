"""The flow drives real DVC stages and tells Prefect what DVC decided."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.errors import StageFailedError
from flows.progress import artifact_key
from flows.stage import run_stage
from svd.types.stage import STAGES
from tests.flows.conftest import instant_project, ran_in, run_in

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("prefect_server"),
]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch):
    """The flow without its report, which belongs to another package."""
    import flows.full_pipeline as module

    monkeypatch.setattr(module, "publish_report", lambda run: None)
    monkeypatch.setattr("flows.policies.RETRY_DELAYS_S", [0.1, 0.1])
    return module.full_pipeline


def test_branches_run_side_by_side_and_the_lock_is_that_of_one_dvc_repro(
    pipeline, tmp_path, monkeypatch
):
    """Each of a pair waits for the other to have begun, so one after the other would not end."""
    project = instant_project(tmp_path, planned=["finetune-t2v", "lora"])
    monkeypatch.chdir(project)
    monkeypatch.setattr("flows.policies.GPU_SLOTS", threading.BoundedSemaphore(3))
    pairs = (
        ("annotate", "camera-motion"),
        ("finetune-i2v", "finetune-t2v"),
        ("lora@zoom", "lora@static"),
        ("evaluate", "lora@horizontal"),
    )
    for one, other in pairs:
        (project / f"meet-{one}").write_text(other)
        (project / f"meet-{other}").write_text(one)
    pipeline(to_stage=STAGES[-1])
    assert sorted(ran_in(project)) == sorted(STAGES)
    lock = (project / "dvc.lock").read_text()
    (project / "dvc.lock").unlink()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=project, check=True)
    assert (project / "dvc.lock").read_text() == lock
    assert sorted(ran_in(project)) == sorted(STAGES)  # from DVC's run cache


def test_a_stage_that_takes_too_long_is_stopped_and_not_tried_again(pipeline, project):
    pipeline(to_stage="ingest")  # at its leisure: the limit is for what never ends
    (project / "meet-clip").write_text("nobody")
    with pytest.raises(StageFailedError, match=r"clip failed \(timeout\): not finished within"):
        pipeline(to_stage="clip", stage_timeout_hours=8 / 3600)


def test_another_recipe_runs_in_a_checkout_of_its_own(pipeline, project):
    pipeline(to_stage="ingest")
    before = {name: (project / name).read_bytes() for name in ("dvc.lock", "params.yaml")}
    there = Path(pipeline(to_stage="ingest", recipe="other"))
    assert there.parent == project / ".svd" / "checkouts"
    assert (there / "out" / "ingest").read_text() == "ingestseed: 7\n"
    assert (project / "out" / "ingest").read_text() == "ingest" + before["params.yaml"].decode()
    assert {name: (project / name).read_bytes() for name in before} == before
    assert Path(pipeline(to_stage="clip", recipe="other")) == there
    assert ran_in(there) == ["ingest", "clip"]  # it goes on where it was


@pytest.mark.parametrize("stage", STAGES)
def test_prefect_takes_the_key_of_every_stages_artifact(stage):
    from prefect.client.schemas.actions import ArtifactCreate

    key = artifact_key("stage", stage)
    assert ArtifactCreate(key=key).key == key


def test_a_stage_that_dvc_skips_is_a_cached_state(project):
    from prefect import flow

    @flow
    def twice():
        first = run_stage("ingest", run_in(project), return_state=True)
        second = run_stage("ingest", run_in(project), return_state=True)
        return first.name, second.name

    assert twice() == ("Completed", "Cached")


def test_from_and_to_select_a_range_of_stages(pipeline, project):
    pipeline(to_stage="annotate")
    assert ran_in(project) == ["ingest", "clip", "annotate"]


def test_a_permanent_fault_is_not_retried_and_names_its_kind(pipeline, project):
    (project / "fault-clip").write_text("svd: [ConfigError] params.yaml: clip.x is not a known key")
    with pytest.raises(StageFailedError, match=r"ConfigError.*clip\.x") as caught:
        pipeline(to_stage="clip")
    assert caught.value.stage == "clip"


def test_a_passing_fault_is_retried(project, monkeypatch):
    from prefect import flow

    (project / "fault-ingest").write_text("svd: [StoreError] the store hiccuped once")

    @flow
    def once():
        return run_stage.with_options(retry_delay_seconds=0.1)(
            "ingest", run_in(project), return_state=True
        ).name

    assert once() == "Completed"
    assert ran_in(project) == ["ingest"]


def test_progress_lines_of_a_stage_move_one_artifact(project):
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    said = "12:00:00 INFO decoding: {0}/4 units ({0}0 %), about 3700 s left"
    lines = "\\n".join(said.format(done) for done in (1, 3))
    script = (project / "stage.py").read_text()
    (project / "stage.py").write_text(f'print("{lines}")\n{script}')

    @flow
    def once():
        run_stage("ingest", run_in(project))

    once()
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["progress-ingest"]))
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(artifact_filter=wanted)
    assert artifact.type == "progress"
    assert artifact.data == 30.0
    assert artifact.description == "decoding: 3/4 units, about 1 h 1 min left"
