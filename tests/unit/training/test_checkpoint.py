"""Checkpoints are whole or absent, detect damage, and do not care how they were cut."""

import errno
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from svd.config.training import CheckpointConfig
from svd.errors import CheckpointError, IntegrityError, StoreError
from svd.runtime.storage_folder import FolderStore
from svd.training.checkpoints.checkpoint import DAMAGED, MARKER, PhaseState
from svd.training.checkpoints.partition import Fragment, Partition
from svd.training.checkpoints.retention import Saved, reasons_to_keep
from svd.training.checkpoints.saver import Checkpoints
from svd.training.checkpoints.shardfile import Snapshot, load_shards, needed_files, take_snapshot
from svd.training.loop.history import LossWindow
from svd.types.shard import StreamPosition

SHAPES = {"a.weight": torch.Size([3, 4]), "a.bias": torch.Size([4]), "b.weight": torch.Size([7])}
KINDS = ("master", "ema", "exp_avg", "exp_avg_sq")


def cut(world_size: int, *, offset: int = 0) -> list[Partition]:
    """Cut the parameters, laid end to end, into equal shards, as ZeRO-1 and 2 do."""
    total = sum(shape.numel() for shape in SHAPES.values())
    size = -(-total // world_size)
    partitions = []
    for rank in range(world_size):
        low, high = rank * size, min((rank + 1) * size, total)
        fragments, begin = [], 0
        for name, shape in SHAPES.items():
            end = begin + shape.numel()
            first, last = max(low, begin), min(high, end)
            if first < last:
                fragments.append(
                    Fragment(name, first - begin, last - first, 0, offset + first - low)
                )
            begin = end
        partitions.append(
            Partition(
                SHAPES,
                tuple(fragments),
                is_sharded=world_size > 1,
                device=torch.device("cpu"),
            )
        )
    return partitions


def flats_of(whole: Tensor, world_size: int) -> list[Tensor]:
    size = -(-len(whole) // world_size)
    return [whole[rank * size : (rank + 1) * size].clone() for rank in range(world_size)]


def values(kind: int) -> Tensor:
    total = sum(shape.numel() for shape in SHAPES.values())
    return torch.arange(total, dtype=torch.float32) + 100 * kind


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9))
def test_what_any_number_of_ranks_saved_any_number_can_load(before: int, after: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for rank, partition in enumerate(cut(before)):
            paths.append(Path(folder) / f"{rank}.safetensors")
            shards = {
                kind: [flats_of(values(number), before)[rank]] for number, kind in enumerate(KINDS)
            }
            take_snapshot(partition, shards).write(paths[-1])
        for rank, partition in enumerate(cut(after, offset=2)):
            size = len(flats_of(values(0), after)[rank])
            shards = {kind: [torch.full((size + 2,), -1.0)] for kind in KINDS}
            load_shards(paths, partition, shards)
            for number, kind in enumerate(KINDS):
                assert torch.equal(shards[kind][0][2:], flats_of(values(number), after)[rank])
                assert shards[kind][0][:2].tolist() == [-1.0, -1.0]


def test_parameters_are_put_together_where_ranks_exchange_them() -> None:
    """Masters of an offloaded optimizer are in CPU memory, and NCCL takes no tensor from there."""
    (partition,) = cut(1)
    elsewhere = replace(partition, device=torch.device("meta"))
    assert {whole.device.type for _, whole in elsewhere.gather([values(0)])} == {"meta"}


def test_a_missing_stretch_is_named(tmp_path: Path) -> None:
    first, _ = cut(2)
    path = tmp_path / "0.safetensors"
    take_snapshot(first, {"master": [flats_of(values(0), 2)[0]]}).write(path)
    (whole,) = cut(1)
    with pytest.raises(CheckpointError, match=r"master/a.bias: the checkpoint holds 0 of elements"):
        load_shards([path], whole, {"master": [values(0)]})


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9))
def test_a_rank_fetches_just_the_files_that_hold_something_of_its_own(
    before: int, after: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        for rank, partition in enumerate(cut(before)):
            shards = {"master": [flats_of(values(0), before)[rank]]}
            take_snapshot(partition, shards).write(Path(folder) / f"{rank}")
        for partition in cut(after):
            needed = list(needed_files(store, map(str, range(before)), partition))
            size = sum(fragment.numel for fragment in partition.fragments)
            paths = [Path(folder) / name for name in needed]
            load_shards(paths, partition, {"master": [torch.zeros(size)]})  # all is there
            for spared in needed:
                fewer = [path for path in paths if path.name != spared]
                with pytest.raises(CheckpointError):
                    load_shards(fewer, partition, {"master": [torch.zeros(size)]})


def test_ranks_that_are_cut_as_before_look_at_their_own_file_only(tmp_path: Path) -> None:
    """Thousands of ranks that looked at thousands of files would ask a store for an hour."""
    asked: list[str] = []

    class Counting(FolderStore):
        def read_range(self, key: str, offset: int, size: int) -> bytes:
            asked.append(key)
            return super().read_range(key, offset, size)

    for rank, partition in enumerate(cut(4)):
        shards = {"master": [flats_of(values(0), 4)[rank]]}
        take_snapshot(partition, shards).write(tmp_path / f"{rank}")
    for rank, partition in enumerate(cut(4)):
        keys = sorted("0123", key=lambda name: name != f"{rank}")
        assert list(needed_files(Counting(tmp_path), keys, partition)) == [f"{rank}"]
    assert set(asked) == set("0123")
    assert len(asked) == 2 * 4  # the header's size, and the header


POLICY = CheckpointConfig(every_steps=2, keep_last=2)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ({}, {8: ("last",), 10: ("last",)}),
        ({"keep_best": 1}, {4: ("best",), 8: ("last",), 10: ("last",)}),
        (
            {"keep_best": 2, "keep_every_steps": 6},
            {4: ("best",), 6: ("every",), 8: ("last",), 10: ("last", "best")},
        ),
    ],
    ids=["last", "best", "all three"],
)
def test_the_policy_keeps_the_last_the_best_and_every_nth(
    policy: dict[str, int], kept: dict[int, tuple[str, ...]]
) -> None:
    losses = {2: 0.9, 4: 0.1, 6: None, 8: 0.4, 10: 0.2}
    saved = [Saved(step, loss) for step, loss in losses.items()]
    assert reasons_to_keep(saved, POLICY.model_copy(update=policy)) == kept


@pytest.mark.usefixtures("one_rank")
class TestFolder:
    """The checkpoints of one phase."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        return tmp_path / "checkpoints"

    def open(self, home: Path, **policy: Any) -> Checkpoints:
        return Checkpoints(
            FolderStore(home),
            policy=POLICY.model_copy(update=policy),
            device=torch.device("cpu"),
            zero_stage=2,
            staging=home.parent / "staging",
        )

    def begin(self, checkpoints: Checkpoints, step: int, heldout_loss: float | None = None) -> None:
        (partition,) = cut(1)
        state = PhaseState(
            step=step,
            examples_seen=4 * step,
            position=StreamPosition(examples_drawn=4 * step),
            window=LossWindow().add([0.1 + step, 0.2], [0.05, 20.0]),
            heldout_loss=heldout_loss,
        )
        shards = {kind: [values(n) * step] for n, kind in enumerate(KINDS)}
        checkpoints.begin(state, partition, shards)
        for flats in shards.values():
            flats[0].zero_()  # the next step overwrites what is being saved

    def save(self, checkpoints: Checkpoints, *steps: int) -> None:
        for step in steps:
            self.begin(checkpoints, step)
        checkpoints.drain()

    def load(self, checkpoints: Checkpoints) -> tuple[PhaseState | None, dict[str, list[Tensor]]]:
        (partition,) = cut(1)
        shards = {kind: [torch.zeros_like(values(0))] for kind in KINDS}
        return checkpoints.load_latest(partition, shards), shards

    def steps_in(self, home: Path) -> list[int]:
        return sorted(int(path.parent.name[5:]) for path in home.glob(f"step-*/{MARKER}"))

    def test_the_newest_comes_back_with_all_of_its_state(self, home: Path) -> None:
        self.save(self.open(home), 2, 10)
        resumed = self.open(home)
        state, shards = self.load(resumed)
        assert state is not None
        assert (state.step, state.examples_seen, resumed.newest_step) == (10, 40, 10)
        assert state.position == StreamPosition(examples_drawn=40)
        assert state.window.mean == pytest.approx((10.1 + 0.2) / 2, abs=0)
        assert torch.equal(shards["exp_avg"][0], values(2) * 10)

    def test_only_the_last_few_are_kept(self, home: Path) -> None:
        self.save(self.open(home), 2, 4)
        resumed = self.open(home)
        self.load(resumed)
        self.save(resumed, 6, 8)
        assert self.steps_in(home) == [6, 8]
        assert sorted(path.name for path in home.glob("step-*")) == [
            "step-000000006",
            "step-000000008",
        ]

    def test_the_best_outlive_the_phase(self, home: Path) -> None:
        checkpoints = self.open(home, keep_best=1)
        for step, loss in ((2, 0.5), (4, 0.3), (6, 0.4), (8, 0.35), (10, None)):
            self.begin(checkpoints, step, loss)
        checkpoints.drain()
        assert self.steps_in(home) == [4, 8, 10]
        assert not checkpoints.would_keep_as_best(0.31)
        assert checkpoints.would_keep_as_best(0.29)
        checkpoints.end_phase()
        assert self.steps_in(home) == [4]

    def test_a_finished_phase_leaves_nothing_that_was_only_recent(self, home: Path) -> None:
        checkpoints = self.open(home)
        self.save(checkpoints, 2, 4)
        checkpoints.end_phase()
        assert list(home.parent.iterdir()) == []

    def test_there_may_be_none(self, home: Path) -> None:
        assert self.load(self.open(home))[0] is None

    def test_training_does_not_wait_for_the_store(self, home: Path) -> None:
        gate = threading.Event()

        class Slow(FolderStore):
            def take_file(self, path: Path, key: str) -> str:
                gate.wait(30)
                return super().take_file(path, key)

        checkpoints = self.open(home)
        checkpoints._store = Slow(home)
        self.begin(checkpoints, 2)
        assert not checkpoints.has_written
        assert self.steps_in(home) == []
        gate.set()
        checkpoints.drain()
        assert self.steps_in(home) == [2]
        _, shards = self.load(self.open(home))
        assert torch.equal(shards["master"][0], values(0) * 2)  # as it was when the save began

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "rank-00000.safetensors").unlink(),
            lambda folder: (folder / "rank-00000.safetensors").write_bytes(b"short"),
            lambda folder: flip_a_bit(folder / "rank-00000.safetensors"),
            lambda folder: (folder / MARKER).write_text("{"),
            lambda folder: rewrite(folder / MARKER, '"step":4', '"step":3'),
        ],
        ids=["file gone", "file torn", "bit flipped", "record torn", "record altered"],
    )
    def test_a_damaged_one_is_set_aside_for_the_one_before(
        self,
        home: Path,
        damage: Callable[[Path], object],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(logging.getLogger("svd"), "propagate", True)
        self.save(self.open(home), 2, 4)
        damage(home / "step-000000004")
        resumed = self.open(home)
        state, shards = self.load(resumed)
        assert state is not None
        assert state.step == 2
        assert torch.equal(shards["ema"][0], values(1) * 2)
        assert "checkpoint set aside" in caplog.text
        assert (home / "step-000000004" / DAMAGED).is_file()
        self.save(resumed, 4)
        state, _ = self.load(self.open(home))
        assert state is not None
        assert state.step == 4

    def test_where_none_can_be_read_all_are_left_as_they_are(self, home: Path) -> None:
        """It may be this machine, or the way to the store, that is at fault."""
        self.save(self.open(home), 2, 4)
        flip_a_bit(home / "step-000000002" / "rank-00000.safetensors")
        (home / "step-000000004" / MARKER).rename(home / "away")
        (home / "step-000000004" / MARKER).write_text("{")
        with pytest.raises(CheckpointError, match=r"has 2 checkpoints and none can be read"):
            self.load(self.open(home))
        assert self.steps_in(home) == [2, 4]
        (home / "away").rename(home / "step-000000004" / MARKER)
        state, _ = self.load(self.open(home))
        assert state is not None
        assert state.step == 4

    def test_what_was_read_badly_is_read_once_more(self, home: Path) -> None:
        self.save(self.open(home), 2, 4)

        class Flaky(FolderStore):
            num_reads = 0

            def as_file(self, key: str, folder: Path, *, sha256: str) -> Path:
                Flaky.num_reads += 1
                if Flaky.num_reads == 1:
                    raise IntegrityError("a bit flipped on the way")
                return super().as_file(key, folder, sha256=sha256)

        resumed = self.open(home)
        resumed._store = Flaky(home)
        state, shards = self.load(resumed)
        assert state is not None
        assert state.step == 4
        assert Flaky.num_reads == 2
        assert torch.equal(shards["ema"][0], values(1) * 4)

    def test_a_save_that_was_killed_is_no_checkpoint_and_is_cleared_away(self, home: Path) -> None:
        self.save(self.open(home), 2)
        shutil.copytree(home / "step-000000002", home / "step-000000004")
        (home / "step-000000004" / MARKER).unlink()
        state, _ = self.load(self.open(home))
        assert state is not None
        assert state.step == 2
        assert not (home / "step-000000004").exists()

    def test_a_record_that_the_store_refuses_makes_no_checkpoint(self, home: Path) -> None:
        class Refusing(FolderStore):
            def put_bytes(self, data: bytes, key: str) -> None:
                raise StoreError("AccessDenied")

        checkpoints = self.open(home)
        checkpoints._store = Refusing(home)
        self.begin(checkpoints, 2)
        assert not checkpoints.drain()
        assert checkpoints.newest_step == 0
        checkpoints._store = FolderStore(home)
        self.begin(checkpoints, 4)
        assert checkpoints.drain()
        assert checkpoints.newest_step == 4
        assert self.steps_in(home) == [4]

    def test_a_full_disk_leaves_the_older_ones(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoints = self.open(home)
        self.save(checkpoints, 2)

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Snapshot, "write", refuse)
        self.begin(checkpoints, 4)
        assert not checkpoints.drain()
        monkeypatch.undo()
        assert [path.name for path in home.glob("step-*")] == ["step-000000002"]
        state, _ = self.load(self.open(home))
        assert state is not None
        assert state.step == 2


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    assert json.loads(text)
    path.write_text(text.replace(old, new))
