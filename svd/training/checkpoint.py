"""Live state on disk: sharded, checked, complete or absent, and readable at any world size.

A checkpoint is a folder with one safetensors file per rank that holds something, and
checkpoint.json, which names every file with its sha256. The folder gets its final name when all of
that is on disk, so a killed save leaves nothing that looks like a checkpoint. Nothing is pickled.
"""

import logging
import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import Field

from svd.errors import IntegrityError
from svd.runtime.fingerprint import file_sha256
from svd.training.history import LossWindow
from svd.training.job import write_text_atomically
from svd.training.partition import Partition
from svd.training.ranks import any_rank
from svd.training.shardfile import Shards, load_shards, save_shards
from svd.types.base import Record
from svd.types.shard import StreamPosition

logger = logging.getLogger(__name__)

MARKER = "checkpoint.json"


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
        final = self._folder / f"step-{state.step:09d}"
        partial = final.with_name(final.name + ".partial")
        if dist.get_rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        dist.barrier()
        mine: CheckpointFile | None = None
        refusal: OSError | None = None
        try:
            mine = self._write_mine(partial, partition, shards)
        except OSError as err:
            refusal = err
        files: list[CheckpointFile | None] = [None] * dist.get_world_size()
        dist.all_gather_object(files, mine)
        is_refused = any_rank(refusal is not None, self._device)
        if dist.get_rank() == 0 and not is_refused:
            record = CheckpointRecord(
                state=state,
                world_size=dist.get_world_size(),
                zero_stage=self._zero_stage,
                files=tuple(file for file in files if file is not None),
            )
            try:
                self._complete(partial, final, record)
            except OSError as err:
                refusal = err
        is_refused = any_rank(refusal is not None, self._device)
        if refusal is not None:
            logger.warning("checkpoint not written", extra={"step": state.step, "why": refusal})
        if is_refused and dist.get_rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        return not is_refused

    def _write_mine(
        self, folder: Path, partition: Partition, shards: Shards
    ) -> CheckpointFile | None:
        rank = dist.get_rank()
        if rank > 0 and not partition.is_sharded:
            return None  # rank 0 holds the same
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rank-{rank:05d}.safetensors"
        save_shards(path, partition, shards)
        _flush(path)
        return CheckpointFile(
            name=path.name, size_bytes=path.stat().st_size, sha256=file_sha256(path)
        )

    def _complete(self, partial: Path, final: Path, record: CheckpointRecord) -> None:
        write_text_atomically(partial / MARKER, record.canonical_json())
        _flush(partial / MARKER)
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

        A damaged one is set aside with a warning, and the one before is taken.
        """
        for folder in reversed(self._complete_ones()):
            problem = self._find_problem(folder)
            if problem is not None:
                logger.warning("checkpoint set aside", extra={"why": problem})
            if any_rank(problem is not None, self._device):
                self._set_aside(folder)
                continue
            record = _read_marker(folder)
            load_shards([folder / file.name for file in record.files], partition, shards)
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

    def _set_aside(self, folder: Path) -> None:
        """Take a damaged checkpoint's name away, so that it neither counts nor is in the way."""
        if dist.get_rank() == 0:
            aside = folder.with_name(folder.name + ".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)
        dist.barrier()

    def remove_all(self) -> None:
        """Delete every checkpoint, once the phase's weights are on disk."""
        if dist.get_rank() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        dist.barrier()


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
