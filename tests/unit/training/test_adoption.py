"""A run goes on under the name that changed code or parameters give it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from svd.cli import app
from svd.errors import ConfigError, LaunchError, MissingInputError
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.checkpoints.checkpoint import find_checkpoints, open_home
from svd.training.loop.history import read_rows
from svd.training.stage import stages
from svd.training.stage.adoption import adopt, note_identity
from svd.training.stage.job import HistoryRow, Outcome, RunFolder, TrainingJob
from svd.training.stage.runs import read_adoptions
from svd.types.artifact import StageReport
from svd.types.base import write_records
from tests.unit.training.solo import make_job, only_rank, train
from tests.unit.training.test_checkpoint import flip_a_bit
from tests.unit.training.test_stages import Ranks, recipe
from tests.unit.training.world import make_world

EVERY_TWO = {"every_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def rank() -> Iterator[None]:
    with only_rank():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One that has a whole run, and one that was stopped after step 3."""
    world = make_world(tmp_path_factory.mktemp("world"))
    train(make_job(world, name="whole", checkpoint=EVERY_TWO))
    stopped = train(make_job(world, name="stopped", checkpoint=EVERY_TWO), stop_at=3)
    note_identity(stopped, {"dep:svd/training/loop": "1", "params:params.yaml:seed": "1"})
    return world


@pytest.fixture
def stopped(world: Workspace, tmp_path: Path) -> TrainingJob:
    place = Workspace(tmp_path)
    shutil.copytree(world.runs, place.runs)
    job = make_job(world, name="stopped", checkpoint=EVERY_TWO)
    return job.model_copy(update={"run": str(place.runs / "stopped")})


def renamed(job: TrainingJob, name: str = "new") -> TrainingJob:
    return job.model_copy(update={"run": str(Path(job.run).with_name(name))})


NOW = {"dep:svd/training/loop": "2", "params:params.yaml:seed": "1", "dep:new": "3"}


def test_it_ends_in_the_bytes_of_a_run_that_never_changed_its_name(
    stopped: TrainingJob, tmp_path: Path
) -> None:
    store = stopped.config.checkpoint.model_copy(update={"store": str(tmp_path / "elsewhere")})
    new = renamed(stopped).model_copy(
        update={"config": stopped.config.model_copy(update={"checkpoint": store})}
    )
    adoption = adopt(stopped, new, NOW)
    assert (adoption.run, adoption.step) == ("stopped", 3)
    assert adoption.differs == ("dep:new", "dep:svd/training/loop")
    assert [finding.record.state.step for finding in find_checkpoints(open_home(new, 0))] == [3]
    folder, whole = train(new), RunFolder(Path(renamed(stopped, "whole").run))
    for name in ("history.jsonl", "0-only/weights.safetensors"):
        assert (folder.path / name).read_bytes() == (whole.path / name).read_bytes()
    left = [finding.record.state.step for finding in find_checkpoints(open_home(stopped, 0))]
    assert left == [2, 3]


def test_a_damaged_checkpoint_is_left_out_for_the_one_before(stopped: TrainingJob) -> None:
    home = Path(open_home(stopped, 0).uri.removeprefix("file://"))
    flip_a_bit(home / "step-000000003" / "rank-00000.safetensors")
    assert adopt(stopped, renamed(stopped), NOW).step == 2


def test_a_finished_run_is_taken_over_whole(stopped: TrainingJob) -> None:
    whole = renamed(stopped, "whole")
    assert adopt(whole, renamed(stopped), NOW).step == 6
    assert RunFolder(Path(renamed(stopped).run)).phase_weights(0, "only").is_file()


def changed(job: TrainingJob, **phase: object) -> TrainingJob:
    """Return the job under another name, with a change of its phase."""
    config = job.config.model_copy(
        update={"phases": (job.config.phases[0].model_copy(update=phase),)}
    )
    return renamed(job).model_copy(update={"config": config})


def test_a_longer_phase_goes_on_and_a_shorter_one_takes_an_earlier_checkpoint(
    stopped: TrainingJob,
) -> None:
    longer = changed(stopped, num_steps=8)
    assert adopt(stopped, longer, NOW).step == 3
    assert [row.step for row in read_rows(train(longer).history, HistoryRow)] == [2, 3, 4, 6, 8]
    shutil.rmtree(longer.run)
    assert adopt(stopped, changed(stopped, num_steps=2), NOW).step == 2


def test_the_weights_of_a_phase_that_had_another_end_are_left(stopped: TrainingJob) -> None:
    whole = renamed(stopped, "whole")  # its checkpoints went as it ended
    with pytest.raises(MissingInputError, match="neither a checkpoint nor a finished phase"):
        adopt(whole, changed(stopped, num_steps=8), NOW)
    assert not RunFolder(Path(renamed(stopped).run)).adoption.exists()


def test_a_chain_of_adoptions_is_kept_and_the_rows_end_where_the_checkpoint_does(
    stopped: TrainingJob,
) -> None:
    home = Path(open_home(stopped, 0).uri.removeprefix("file://"))
    shutil.rmtree(home / "step-000000003")
    second, third = renamed(stopped, "second"), renamed(stopped, "third")
    adopt(stopped, second, NOW)
    adopt(second, third, NOW)
    folder = RunFolder(Path(third.run))
    assert [(one.run, one.step) for one in read_adoptions(folder)] == [
        ("stopped", 2),
        ("second", 2),
    ]
    assert [row.step for row in read_rows(folder.history, HistoryRow)] == [2]


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"name": "other"}, "no first phase in common"),
        ({"trainable": "temporal"}, "no first phase in common"),
    ],
)
def test_phases_that_are_not_the_same_are_not_gone_on_with(
    stopped: TrainingJob, phase: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        adopt(stopped, changed(stopped, **phase), NOW)


def test_what_cannot_be_is_one_sentence_and_leaves_no_run(stopped: TrainingJob) -> None:
    new = renamed(stopped)
    with pytest.raises(ConfigError, match="stopped is the run that finetune-i2v would go on with"):
        adopt(stopped, stopped, NOW)
    with pytest.raises(ConfigError, match="a run of finetune-i2v, not of pretrain-video"):
        adopt(stopped, new.model_copy(update={"stage": "pretrain-video"}), NOW)
    unet = new.denoiser.unet.model_copy(update={"added_id_dim": 64})
    other = new.model_copy(update={"denoiser": new.denoiser.model_copy(update={"unet": unet})})
    with pytest.raises(ConfigError, match="stopped trains another network"):
        adopt(stopped, other, NOW)
    with pytest.raises(ConfigError, match="whole has begun to train by itself"):
        adopt(stopped, renamed(stopped, "whole"), NOW)
    for folder in (RunFolder(Path(stopped.run)), RunFolder(Path(new.run))):
        with (
            FileLock(folder.lock),
            pytest.raises(LaunchError, match=f"run {folder.path.name} is at work"),
        ):
            adopt(stopped, new, NOW)
    shutil.rmtree(Path(stopped.run) / "0-only")
    with pytest.raises(MissingInputError, match="neither a checkpoint nor a finished phase"):
        adopt(stopped, new, NOW)
    assert not RunFolder(Path(new.run)).history.exists()


def test_a_new_beginning_names_the_run_that_is_unfinished_and_the_report_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(stages.logger, "warning", lambda said, extra: told.append((said, extra)))
    workspace = make_world(tmp_path)

    def stop(job: TrainingJob, folder: RunFolder) -> None:
        train(job, stop_at=3)

    def go_on(job: TrainingJob, folder: RunFolder) -> None:
        train(job)
        write_records(folder.outcome, [Outcome(kind="finished", step=6)])

    def begin(launcher: Ranks) -> StageReport:
        return stages.run(
            "finetune-i2v",
            recipe(checkpoint=EVERY_TWO),
            workspace,
            tracker=NullTracker(),
            launcher=launcher,
        )

    with pytest.raises(LaunchError):
        begin(Ranks(stop))
    (old,) = workspace.runs.iterdir()
    (tmp_path / "params.yaml").write_text("seed: 2\n")
    with pytest.raises(LaunchError):
        begin(Ranks(lambda job, folder: None))
    ((said, facts),) = told
    assert said == "another run of this stage is unfinished; this one begins anew"
    assert facts == {
        "run": old.name,
        "step": 3,
        "differs": "params:params.yaml:seed",
        "to_go_on_from_it": f"svd checkpoint adopt {old.name}",
    }

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("svd.config.load.load_params", lambda _: recipe(checkpoint=EVERY_TWO))
    done = CliRunner().invoke(app, ["checkpoint", "adopt", "finetune-i2v"])
    assert done.exit_code == 0, done.output
    assert f"goes on from step 3 of {old.name}" in " ".join(done.output.split())
    report = begin(Ranks(go_on))
    assert report.summary["went on from run"] == old.name
    assert f"went on from step 3 of run {old.name}" in report.warnings[0]
