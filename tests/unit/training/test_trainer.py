"""One rank trains in the test process: what it leaves on disk, and what it does in trouble."""

import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from svd.commands.checkpoint import app as checkpoint_commands
from svd.data.stream.quarantine import read_quarantine
from svd.data.stream.shards import load_manifest, read_index
from svd.errors import IntegrityError, MissingInputError, TrainingDivergedError
from svd.runtime.storage import open_store
from svd.runtime.workspace import Workspace
from svd.training.checkpoints.checkpoint import PhaseState, find_checkpoints, open_home
from svd.training.loop.history import read_rows
from svd.training.stage.job import DivergedExample, HistoryRow, RunFolder, SpeedRow, TrainingJob
from svd.types.artifact import ModelRecord
from svd.types.base import read_records
from tests.unit.training.solo import make_job, only_rank, train
from tests.unit.training.world import make_world, stage_config


@pytest.fixture(scope="module", autouse=True)
def rank() -> Iterator[None]:
    with only_rank():
        yield


@pytest.fixture
def world(tmp_path: Path) -> Workspace:
    return make_world(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A finished run that left all that a run can leave."""
    world = make_world(tmp_path_factory.mktemp("kept"))
    job = make_job(
        world,
        phase={"power_ema": {"stds": [0.05, 0.1], "snapshot_every_steps": 3}},
        samples={"every_steps": 3, "num_clips": 3, "schedule": {"num_steps": 2}},
        checkpoint={"every_steps": 2, "keep_best": 1, "keep_every_steps": 6},
        compute={"zero_stage": 2},
    )
    train(job)
    return job


def test_samples_of_heldout_clips_are_written_at_intervals(kept: TrainingJob) -> None:
    folder = RunFolder(Path(kept.run))
    for step in (3, 6):
        videos = folder.samples / f"step-{step:09d}"
        assert sorted(path.suffix for path in videos.iterdir()) == [".mp4"] * 3
        assert videos.with_name(videos.name + ".png").stat().st_size > 1000


def test_checkpoints_that_are_kept_for_good_outlive_the_phase(kept: TrainingJob) -> None:
    found = [finding.record for finding in find_checkpoints(open_home(kept, 0))]
    steps = {record.state.step: record.state.heldout_loss for record in found if record}
    losses = heldout(RunFolder(Path(kept.run)))
    best = min(losses, key=lambda step: losses[step])
    assert steps.keys() == {6, best}
    assert steps[best] == losses[best]


def test_an_exported_checkpoint_is_the_model_that_the_phase_hands_on(
    kept: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(kept.run).parents[1])
    command = CliRunner()
    listed = command.invoke(checkpoint_commands, ["ls"]).output
    assert "every" in listed
    assert str(Path(kept.run).name) in listed
    assert "0 damaged" in command.invoke(checkpoint_commands, ["verify", "finetune-i2v"]).output
    export = ["export", "finetune-i2v", "--out", str(tmp_path / "model"), "--step", "6"]
    assert command.invoke(checkpoint_commands, export).exit_code == 0
    ours = load_file(tmp_path / "model" / "weights.safetensors")
    theirs = load_file(RunFolder(Path(kept.run)).phase_weights(0, "only"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    card = ModelRecord.parse((tmp_path / "model" / "model.json").read_text(), origin="card")
    assert (card.step, card.examples_seen) == (6, 24)


def test_a_power_average_that_was_kept_comes_back_as_a_model(
    kept: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(kept.run).parents[1])
    arguments = ["ema", "finetune-i2v", "--std", "0.1", "--out", str(tmp_path / "model")]
    assert CliRunner().invoke(checkpoint_commands, arguments).exit_code == 0
    ours = load_file(tmp_path / "model" / "weights.safetensors")
    folder = RunFolder(Path(kept.run)).power_ema(0, "only")
    snapshot = load_file(folder / "step-000000006-std-0.1.safetensors")
    assert 0 < len(snapshot) <= len(ours)
    for name, tensor in snapshot.items():
        torch.testing.assert_close(ours[name], tensor.float(), rtol=1e-4, atol=1e-5)


def heldout(folder: RunFolder) -> dict[int, float]:
    rows = read_rows(folder.history, HistoryRow)
    return {row.step: row.heldout_loss for row in rows if row.heldout_loss is not None}


def test_speed_rows_say_how_fast_how_full_and_how_long(world: Workspace) -> None:
    rows = read_rows(train(make_job(world)).speed, SpeedRow)
    assert [row.step for row in rows] == [2, 3, 4, 6]
    for row in rows:
        assert 0 < row.mfu < 1
        assert row.examples_per_s > 0
        assert 0 <= row.data_wait_share < 1
    assert rows[0].phase_left_s > 0
    assert rows[-1].phase_left_s == 0


def test_a_corrupt_example_in_the_middle_is_set_aside_and_training_goes_on(
    world: Workspace,
) -> None:
    damaged = corrupt_examples(world, 1)
    folder = train(make_job(world))
    assert len(read_rows(folder.history, HistoryRow)) == 4
    (found,) = read_quarantine(folder.quarantines)
    assert found.clip_id == damaged[0]
    assert "hash to" in found.reason


def test_more_bad_examples_than_allowed_end_in_a_sentence(world: Workspace) -> None:
    corrupt_examples(world, 4)
    data = {"height": 16, "width": 32, "num_frames": 4, "batch_size": 4, "max_quarantined": 2}
    job = make_job(world, phase={"data": data})
    with pytest.raises(IntegrityError, match=r"[34] examples could not be read, more than"):
        train(job)
    assert len(list(read_quarantine(RunFolder(Path(job.run)).quarantines))) >= 3


def test_a_missing_shard_is_named(world: Workspace) -> None:
    shard = next(shard for shard in load_manifest(store(world)).shards if shard.split == "train")
    (world.latents / shard.uri).unlink()
    data = {"height": 16, "width": 32, "num_frames": 4, "batch_size": 4, "max_quarantined": 2}
    with pytest.raises(IntegrityError, match=rf"{shard.uri}: not in the store"):
        train(make_job(world, phase={"data": data}))


def store(world: Workspace) -> Any:
    return open_store(str(world.latents))


def corrupt_examples(world: Workspace, count: int) -> list[str]:
    """Flip a byte in the latents of the first few training examples; return their clips."""
    shard = next(shard for shard in load_manifest(store(world)).shards if shard.split == "train")
    entries = read_index(store(world), shard).examples[:count]
    path = world.latents / shard.uri
    content = bytearray(path.read_bytes())
    for entry in entries:
        place = entry.members["moments.0000.npy"]
        content[place.offset + place.size // 2] ^= 1
    path.write_bytes(content)
    return [entry.key for entry in entries]


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_its_examples(
    world: Workspace,
) -> None:
    job = make_job(world, phase={"lr": 1e30, "num_steps": 6})
    folder = RunFolder(Path(job.run))
    with pytest.raises(TrainingDivergedError, match="is not finite; its clips: clip0"):
        train(job)
    examples = list(read_records(folder.divergence, DivergedExample))
    assert len(examples) == 4
    assert len({example.position for example in examples}) == 4
    assert all(example.is_suspect == (example.loss is None) for example in examples)
    step = examples[0].step
    kept = [f.record for f in find_checkpoints(open_home(job, 0)) if f.record is not None]
    assert all(record.state.step < step for record in kept)
    for record in kept:  # what was saved is what was there before the step: finite
        home = folder.phase(0, "only") / "checkpoints" / record.prefix
        tensors = load_file(home / "rank-00000.safetensors")
        assert all(bool(t.isfinite().all()) for n, t in tensors.items() if n.startswith("master/"))


@contextmanager
def files_no_larger_than(size_bytes: int) -> Iterator[None]:
    """Let the operating system refuse larger files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def listening_to(name: str) -> Iterator[list[logging.LogRecord]]:
    """Collect what one logger says, however the loggers above it are set up."""
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger(name).removeHandler(handler)


def test_a_disk_without_space_for_a_checkpoint_costs_a_warning(world: Workspace) -> None:
    job = make_job(world)
    # The weights fit, master weights with moments do not.
    with listening_to("svd.training.checkpoints.saver") as said, files_no_larger_than(500_000):
        folder = train(job)
    assert [record.getMessage() for record in said] == ["checkpoint not written"] * 2
    assert "File too large" in str(said[0].__dict__["why"])
    assert folder.phase_weights(0, "only").is_file()


def test_a_phase_that_had_a_checkpoint_is_not_begun_again_because_its_store_is_gone(
    world: Workspace, tmp_path: Path
) -> None:
    store = tmp_path / "mounted"
    every = {"every_steps": 2, "store": str(store)}
    folder = train(make_job(world, checkpoint=every), stop_at=5)
    assert read_rows(folder.speed, SpeedRow)[0].unsaved_steps == 2
    store.rename(tmp_path / "away")
    with pytest.raises(MissingInputError, match=r"had a checkpoint of step \d, and there is none"):
        train(make_job(world, checkpoint=every))
    (tmp_path / "away").rename(store)
    resumed = train(make_job(world, checkpoint=every | {"every_steps": 3}))
    assert read_rows(resumed.history, HistoryRow)[-1].step == 6


def test_a_phase_that_never_had_one_is_begun_again(
    world: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the first checkpoint, then told to save more often."""
    job = make_job(world, checkpoint={"every_steps": 100})
    with monkeypatch.context() as patch:
        patch.setattr("svd.training.loop.loop._keep_power_averages", _interrupt_after(4))
        with pytest.raises(KeyboardInterrupt):
            train(job)
    resumed = train(make_job(world, checkpoint={"every_steps": 1}))
    assert [row.step for row in read_rows(resumed.history, HistoryRow)] == [2, 3, 4, 6]


def _interrupt_after(step: int) -> Callable[[object, PhaseState], None]:
    def interrupt(_run: object, state: PhaseState) -> None:
        if state.step == step:
            raise KeyboardInterrupt

    return interrupt


def test_a_run_whose_folder_is_lost_does_not_begin_anew_beside_its_checkpoints(
    world: Workspace, tmp_path: Path
) -> None:
    first = stage_config().phases[0].model_copy(update={"num_steps": 3})
    second = first.model_copy(update={"name": "second", "num_steps": 6})
    job = make_job(world, checkpoint={"every_steps": 2, "store": str(tmp_path / "store")})
    config = job.config.model_copy(update={"phases": (first, second)})
    job = job.model_copy(update={"config": config})
    folder = train(job, stop_at=6)
    assert folder.phase_weights(0, "only").is_file()
    shutil.rmtree(folder.path)
    with pytest.raises(MissingInputError, match=r"1-second has checkpoints of a later phase"):
        train(job)


@pytest.mark.parametrize("stage", [0, 3])
def test_batches_of_pictures_among_clips_count_as_no_gradient_for_temporal_layers(
    world: Workspace, stage: int
) -> None:
    """As under ZeRO-2; and AdamW's count of updates is the same after an interruption."""

    def job(name: str, zero_stage: int) -> TrainingJob:
        data = {"height": 16, "width": 32, "num_frames": 4, "batch_size": 4}
        return make_job(
            world,
            name=name,
            phase={"data": data | {"image_batch_fraction": 0.5}, "num_steps": 7, "lr": 3e-3},
            compute={"zero_stage": zero_stage},
        )

    expected = load_file(train(job("other", 2)).phase_weights(0, "only"))
    unbroken = load_file(train(job("unbroken", stage)).phase_weights(0, "only"))
    for name, tensor in unbroken.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=2e-6)
    train(job("broken", stage), stop_at=3)
    resumed = load_file(train(job("broken", stage)).phase_weights(0, "only"))
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
