"""Live state on disk: sharded, checked, complete or absent, and readable at any world size.

A checkpoint is a folder with one safetensors file per rank that holds something, and
checkpoint.json, which names every file with its sha256. The folder gets its final name when all of
that is on disk, so a killed save leaves nothing that looks like a checkpoint. Tensors are stretches
of flattened parameters, named "<what>/<parameter>", whose first element stands in the file's
metadata: a run may go on with other ranks or another ZeRO stage. Nothing is pickled.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from svd.errors import CheckpointError, IntegrityError
from svd.runtime.fingerprint import file_sha256
from svd.training.history import LossWindow
from svd.training.job import write_text_atomically
from svd.training.partition import Fragment, Partition
from svd.training.ranks import any_rank
from svd.types.base import Record
from svd.types.shard import StreamPosition

logger = logging.getLogger(__name__)

MARKER = "checkpoint.json"
_STARTS = "starts"  # key of a file's metadata: {tensor: first element}, as JSON

# What is saved, parallel to the engine's masters: "master", "ema", "exp_avg", "exp_avg_sq".
Shards = Mapping[str, Sequence[Tensor]]


class PhaseState(Record):
    """Where a phase is: all of its state that is no tensor."""

    step: int = Field(default=0, ge=0)  # optimizer steps made in this phase
    examples_seen: int = Field(default=0, ge=0)  # over all phases
    position: StreamPosition = StreamPosition()
    window: LossWindow = LossWindow()


class CheckpointFile(Record):
    """One rank's file."""

    name: str
    size_bytes: int
    sha256: str


class CheckpointRecord(Record):
    """checkpoint.json."""

    format: str = "svd-training-1"
    state: PhaseState
    world_size: int = Field(gt=0)
    zero_stage: int = Field(ge=0, le=3)
    files: tuple[CheckpointFile, ...]


class Checkpoints:
    """The checkpoints of one phase; every method must be called by all ranks together."""

    def __init__(
        self, folder: Path, *, keep_last: int, device: torch.device, zero_stage: int
    ) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._device = device
        self._zero_stage = zero_stage

    def save(self, state: PhaseState, partition: Partition, shards: Shards) -> bool:
        """Write a checkpoint; return False if the disk refused, which leaves the older ones."""
        final = self._folder / _folder_name(state.step)
        partial = final.with_name(final.name + ".partial")
        if dist.get_rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        mine, refusal = None, None
        try:
            mine = self._write_mine(partial, partition, shards)
        except OSError as err:
            refusal = err
            logger.warning("checkpoint not written", extra={"step": state.step, "why": err})
        if any_rank(refusal is not None, self._device):
            if dist.get_rank() == 0:
                shutil.rmtree(partial, ignore_errors=True)
            return False
        files: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(files, mine)
        if dist.get_rank() == 0:
            record = CheckpointRecord(
                state=state,
                world_size=dist.get_world_size(),
                zero_stage=self._zero_stage,
                files=tuple(file for file in files if file is not None),
            )
            self._complete(partial, final, record)
        dist.barrier()
        return True

    def _write_mine(
        self, folder: Path, partition: Partition, shards: Shards
    ) -> CheckpointFile | None:
        rank = dist.get_rank()
        if rank > 0 and not partition.is_sharded:
            return None  # rank 0 holds the same
        tensors = {
            f"{kind}/{fragment.name}": fragment.read(flats).detach().cpu().contiguous()
            for kind, flats in shards.items()
            for fragment in partition.fragments
        }
        starts = {fragment.name: fragment.start for fragment in partition.fragments}
        path = folder / f"rank-{rank:05d}.safetensors"
        save_file(tensors, path, metadata={_STARTS: json.dumps(starts)})
        _flush(path)
        return CheckpointFile(
            name=path.name, size_bytes=path.stat().st_size, sha256=file_sha256(path)
        )

    def _complete(self, partial: Path, final: Path, record: CheckpointRecord) -> None:
        write_text_atomically(partial / MARKER, record.canonical_json())
        _flush(partial / MARKER)
        if final.exists():  # a damaged one of the same step, which was passed over
            shutil.rmtree(final)
        partial.replace(final)
        _flush(self._folder)
        for old in self._complete_ones()[: -self._keep_last]:
            shutil.rmtree(old)
        logger.info("checkpoint saved", extra={"step": record.state.step})

    def _complete_ones(self) -> list[Path]:
        """Return the folders with a marker, oldest first."""
        return sorted(path.parent for path in self._folder.glob(f"step-*[0-9]/{MARKER}"))

    def load_latest(self, partition: Partition, shards: Shards) -> PhaseState | None:
        """Fill the shards from the newest sound checkpoint; None if there is none.

        A damaged one is passed over with a warning, and the one before is taken.
        """
        for folder in reversed(self._complete_ones()):
            problem = self._find_problem(folder)
            if any_rank(problem is not None, self._device):
                if problem is not None:
                    logger.warning("checkpoint passed over", extra={"why": problem})
                continue
            record = _read_marker(folder)
            _fill(folder, record, partition, shards)
            return record.state
        return None

    def _find_problem(self, folder: Path) -> str | None:
        """Check this rank's share of the files; hashing is divided over the ranks."""
        try:
            record = _read_marker(folder)
        except IntegrityError as err:
            return str(err)
        for file in record.files[dist.get_rank() :: dist.get_world_size()]:
            path = folder / file.name
            if not path.is_file():
                return f"{path} is missing"
            if file_sha256(path) != file.sha256:
                return f"{path} does not have the sha256 that {MARKER} names"
        return None

    def remove_all(self) -> None:
        """Delete every checkpoint, once the phase's weights are on disk."""
        if dist.get_rank() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        dist.barrier()


def _folder_name(step: int) -> str:
    return f"step-{step:09d}"


def _read_marker(folder: Path) -> CheckpointRecord:
    path = folder / MARKER
    return CheckpointRecord.parse(path.read_text(encoding="utf-8"), origin=str(path))


def _flush(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Stretch(NamedTuple):
    start: int
    stop: int
    file: Any  # safe_open is untyped


def _fill(folder: Path, record: CheckpointRecord, partition: Partition, shards: Shards) -> None:
    """Copy the stretches of this rank's fragments out of whichever files hold them."""
    with ExitStack() as stack:
        files = [
            stack.enter_context(safe_open(folder / file.name, framework="pt"))
            for file in record.files
        ]
        stored = dict(_stored_stretches(files))
        for kind, flats in shards.items():
            for fragment in partition.fragments:
                key = f"{kind}/{fragment.name}"
                fragment.write(flats, _assemble(key, fragment, stored.get(fragment.name, [])))


def _stored_stretches(files: Sequence[Any]) -> Iterator[tuple[str, list[_Stretch]]]:
    found: dict[str, list[_Stretch]] = {}
    for file in files:
        for name, start in json.loads(file.metadata()[_STARTS]).items():
            (numel,) = file.get_slice(f"master/{name}").get_shape()
            found.setdefault(name, []).append(_Stretch(start, start + numel, file))
    yield from found.items()


def _assemble(key: str, fragment: Fragment, stretches: Sequence[_Stretch]) -> Tensor:
    values = torch.empty(fragment.numel, dtype=torch.float32)
    stop = fragment.start + fragment.numel
    filled = 0
    for stretch in stretches:
        low, high = max(stretch.start, fragment.start), min(stretch.stop, stop)
        if low < high:
            part = stretch.file.get_slice(key)[low - stretch.start : high - stretch.start]
            values[low - fragment.start : high - fragment.start] = part
            filled += high - low
    if filled != fragment.numel:
        raise CheckpointError(
            f"{key}: the checkpoint holds {filled} of elements {fragment.start}..{stop}"
        )
    return values
