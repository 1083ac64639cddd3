"""Checkpoints are whole or absent, detect damage, and do not care how they were cut."""

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from svd.errors import CheckpointError
from svd.training import checkpoint as checkpoint_module
from svd.training.checkpoint import MARKER, Checkpoints, PhaseState
from svd.training.history import LossWindow
from svd.training.partition import Fragment, Partition
from svd.training.shardfile import load_shards, save_shards
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
        partitions.append(Partition(SHAPES, tuple(fragments), is_sharded=world_size > 1))
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
            save_shards(paths[-1], partition, shards)
        for rank, partition in enumerate(cut(after, offset=2)):
            size = len(flats_of(values(0), after)[rank])
            shards = {kind: [torch.full((size + 2,), -1.0)] for kind in KINDS}
            load_shards(paths, partition, shards)
            for number, kind in enumerate(KINDS):
                assert torch.equal(shards[kind][0][2:], flats_of(values(number), after)[rank])
                assert shards[kind][0][:2].tolist() == [-1.0, -1.0]


def test_a_missing_stretch_is_named(tmp_path: Path) -> None:
    first, _ = cut(2)
    path = tmp_path / "0.safetensors"
    save_shards(path, first, {"master": [flats_of(values(0), 2)[0]]})
    (whole,) = cut(1)
    with pytest.raises(CheckpointError, match=r"master/a.bias: the checkpoint holds 0 of elements"):
        load_shards([path], whole, {"master": [values(0)]})


@pytest.mark.usefixtures("one_rank")
class TestFolder:
    """The folder of one phase."""

    @pytest.fixture
    def checkpoints(self, tmp_path: Path) -> Checkpoints:
        return Checkpoints(
            tmp_path / "checkpoints", keep_last=2, device=torch.device("cpu"), zero_stage=2
        )

    def save(self, checkpoints: Checkpoints, step: int) -> bool:
        (partition,) = cut(1)
        state = PhaseState(
            step=step,
            examples_seen=4 * step,
            position=StreamPosition(examples_drawn=4 * step),
            window=LossWindow().add([0.1 + step, 0.2], [0.05, 20.0]),
        )
        return checkpoints.save(
            state, partition, {kind: [values(n) * step] for n, kind in enumerate(KINDS)}
        )

    def load(self, checkpoints: Checkpoints) -> tuple[PhaseState | None, dict[str, list[Tensor]]]:
        (partition,) = cut(1)
        shards = {kind: [torch.zeros_like(values(0))] for kind in KINDS}
        return checkpoints.load_latest(partition, shards), shards

    def test_the_newest_comes_back_with_all_of_its_state(self, checkpoints: Checkpoints) -> None:
        for step in (2, 10):
            assert self.save(checkpoints, step)
        state, shards = self.load(checkpoints)
        assert state is not None
        assert (state.step, state.examples_seen) == (10, 40)
        assert state.position == StreamPosition(examples_drawn=40)
        assert state.window.mean == pytest.approx((10.1 + 0.2) / 2, abs=0)
        assert torch.equal(shards["exp_avg"][0], values(2) * 10)

    def test_only_the_last_few_are_kept(self, checkpoints: Checkpoints, tmp_path: Path) -> None:
        for step in (2, 4, 6, 8):
            self.save(checkpoints, step)
        names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        assert names == ["step-000000006", "step-000000008"]

    def test_there_may_be_none(self, checkpoints: Checkpoints) -> None:
        assert self.load(checkpoints)[0] is None

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "rank-00000.safetensors").unlink(),
            lambda folder: (folder / "rank-00000.safetensors").write_bytes(b"short"),
            lambda folder: (folder / MARKER).write_text("{"),
        ],
        ids=["file gone", "file torn", "marker torn"],
    )
    def test_a_damaged_one_is_set_aside_for_the_one_before(
        self, checkpoints: Checkpoints, tmp_path: Path, damage: Callable[[Path], object]
    ) -> None:
        for step in (2, 4):
            self.save(checkpoints, step)
        damage(tmp_path / "checkpoints" / "step-000000004")
        state, shards = self.load(checkpoints)
        assert state is not None
        assert state.step == 2
        assert torch.equal(shards["ema"][0], values(1) * 2)
        assert self.save(checkpoints, 4)
        state, _ = self.load(checkpoints)
        assert state is not None
        assert state.step == 4

    def test_a_save_that_was_killed_is_no_checkpoint(
        self, checkpoints: Checkpoints, tmp_path: Path
    ) -> None:
        self.save(checkpoints, 2)
        partial = tmp_path / "checkpoints" / "step-000000004.partial"
        shutil.copytree(tmp_path / "checkpoints" / "step-000000002", partial)
        state, _ = self.load(checkpoints)
        assert state is not None
        assert state.step == 2

    def test_a_full_disk_leaves_the_older_ones(
        self, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.save(checkpoints, 2)

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoint_module, "save_shards", refuse)
        assert not self.save(checkpoints, 4)
        monkeypatch.undo()
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000002"]
        state, _ = self.load(checkpoints)
        assert state is not None
        assert state.step == 2
