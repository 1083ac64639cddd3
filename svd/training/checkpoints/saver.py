"""Saving while training goes on: a copy now, files behind its back, the record when all agree.

A save begins with a copy of this rank's tensors in memory, the only thing that a step waits for. A
thread writes the copy to the store. Ranks tell each other in every step's exchange of losses
whether theirs is written; when all are, rank 0's thread writes the record that makes it a
checkpoint. No thread ever talks to another rank.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from svd.config.training import CheckpointConfig
from svd.errors import CheckpointError, IntegrityError, MissingInputError, StoreError
from svd.runtime.store import Store
from svd.training.checkpoints.checkpoint import (
    DAMAGED,
    MARKER,
    CheckpointFile,
    CheckpointRecord,
    PhaseState,
    Sealed,
    fetch,
    find_checkpoints,
    prefix_of,
)
from svd.training.checkpoints.partition import Partition
from svd.training.checkpoints.retention import Saved, outlives_phase, reasons_to_keep
from svd.training.checkpoints.shardfile import (
    Shards,
    Snapshot,
    load_shards,
    needed_files,
    take_snapshot,
)
from svd.training.loop.ranks import any_rank

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one phase; every method must be called by all ranks together."""

    def __init__(
        self,
        store: Store,
        *,
        policy: CheckpointConfig,
        device: torch.device,
        zero_stage: int,
        staging: Path,
    ) -> None:
        """Take the store as it is; `load_latest` looks at what is in it.

        Args:
            store: Holds the checkpoints of this phase and nothing else.
            policy: Which are kept.
            device: Of the ranks' exchange.
            zero_stage: Goes into the records.
            staging: Folder for files on their way; on the disk of the store, if that is a folder.
        """
        self._store = store
        self._policy = policy
        self._device = device
        self._zero_stage = zero_stage
        self._staging = staging
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._state: PhaseState | None = None  # of the save under way
        self._mine: Future[CheckpointFile | None] | None = None  # this rank's part of it
        self._record: Future[bool] | None = None  # rank 0: whether the last record was written
        self._in_store: dict[int, Saved] = {}  # rank 0's thread
        self._newest_step = 0
        self._heldout: list[float] = []  # of all that was saved; equal on all ranks

    @property
    def has_written(self) -> bool:
        """Whether there is a save under way of which this rank's part is written, or refused."""
        return self._mine is not None and self._mine.done()

    @property
    def newest_step(self) -> int:
        """Step of the newest checkpoint, as rank 0 knows it; 0 if there is none."""
        return self._newest_step

    def begin(self, state: PhaseState, partition: Partition, shards: Shards) -> float:
        """Start a save; return the seconds it held training up.

        A save that is still under way is waited for first.
        """
        started = time.perf_counter()
        self.settle()
        # Where nothing is sharded every rank holds the same, and rank 0 writes it.
        has_part = partition.is_sharded or dist.get_rank() == 0
        snapshot = take_snapshot(partition, shards) if has_part else None
        self._state = state
        self._mine = self._thread.submit(self._write_mine, state, snapshot, dist.get_rank())
        return time.perf_counter() - started

    def _write_mine(
        self, state: PhaseState, snapshot: Snapshot | None, rank: int
    ) -> CheckpointFile | None:
        if snapshot is None:
            return None
        name = _file_name(rank)
        path = self._make_staging() / name
        try:
            snapshot.write(path)
            size_bytes = path.stat().st_size
            sha256 = self._store.take_file(path, prefix_of(state.step) + name)
        finally:
            path.unlink(missing_ok=True)
        return CheckpointFile(name=name, size_bytes=size_bytes, sha256=sha256)

    def settle(self) -> bool:
        """End the save under way, if any; return False if the store refused a rank's part.

        Waits for this rank's part. Rank 0's thread writes the record, or removes the parts.
        """
        if self._mine is None or self._state is None:
            return True
        state, mine, refusal = self._state, None, None
        try:
            mine = self._mine.result()
        except (OSError, StoreError) as err:
            refusal = err
            logger.warning("checkpoint not written", extra={"step": state.step, "why": err})
        self._mine = self._state = None
        files: list[CheckpointFile | None] = [None] * dist.get_world_size()
        dist.all_gather_object(files, mine)
        is_refused = any_rank(refusal is not None, self._device)
        if state.heldout_loss is not None and not is_refused:
            self._heldout.append(state.heldout_loss)
        if dist.get_rank() == 0:
            record = CheckpointRecord(
                state=state,
                world_size=dist.get_world_size(),
                zero_stage=self._zero_stage,
                files=tuple(file for file in files if file is not None),
            )
            self._record = self._thread.submit(self._end, record, is_refused=is_refused)
        return not is_refused

    def _end(self, record: CheckpointRecord, *, is_refused: bool) -> bool:
        """Write a save's record, or remove its parts; say whether it is a checkpoint now."""
        step = record.state.step
        try:
            if is_refused:
                self._store.delete_tree(record.prefix)
                return False
            self._store.put_bytes(
                Sealed.of(record).canonical_json().encode(), record.prefix + MARKER
            )
        except (OSError, StoreError) as err:
            logger.warning("checkpoint not written", extra={"step": step, "why": err})
            return False
        self._in_store[step] = Saved(step, record.state.heldout_loss)
        self._newest_step = step
        logger.info("checkpoint saved", extra={"step": step, "size_bytes": record.size_bytes})
        try:
            self._remove_all_but(reasons_to_keep(self._in_store.values(), self._policy))
        except (OSError, StoreError) as err:
            logger.warning("older checkpoints not removed", extra={"why": err})
        return True

    def _remove_all_but(self, kept: Collection[int]) -> None:
        for step in [step for step in self._in_store if step not in kept]:
            # The record first: without it, what a kill leaves here is no checkpoint.
            self._store.delete(prefix_of(step) + MARKER)
            self._store.delete_tree(prefix_of(step))
            del self._in_store[step]

    def drain(self) -> bool:
        """End the save under way, and wait; return False if the last one is no checkpoint."""
        is_written = self.settle()
        if self._record is not None:
            is_written = self._record.result()
        return not any_rank(not is_written, self._device)

    def would_keep_as_best(self, heldout_loss: float) -> bool:
        """Say whether the state that has this held-out loss is among the best so far."""
        best = sorted(self._heldout)[: self._policy.keep_best]
        return len(best) < self._policy.keep_best or (bool(best) and heldout_loss < best[-1])

    def load_latest(self, partition: Partition, shards: Shards) -> PhaseState | None:
        """Fill the shards from the newest sound checkpoint; None if there is none.

        A damaged one is set aside with a warning, and the one before is taken. Nothing is set
        aside unless one is sound: if none can be read, it may be this machine that cannot.

        Raises:
            CheckpointError: There are checkpoints, and none can be read.
            StoreError: The store failed.
        """
        records, damaged = self._agree_on_records()
        found = None
        while records and found is None:
            with tempfile.TemporaryDirectory(dir=self._make_staging()) as folder:
                paths = self._fetch_needed(records[-1], partition, Path(folder))
                if any_rank(paths is None, self._device):
                    damaged.append(records.pop().prefix)
                    continue
                load_shards(paths or [], partition, shards)
                found = records[-1].state
        if damaged and found is None:
            raise CheckpointError(
                f"{self._store.uri} has {len(damaged)} checkpoints and none can be read (the log "
                "says why); all were left as they are: look at disk and network, or delete that "
                "folder if they are lost"
            )
        if found is not None:
            self._set_aside(damaged)
        self._in_store = {r.state.step: Saved(r.state.step, r.state.heldout_loss) for r in records}
        self._newest_step = max(self._in_store, default=0)
        self._heldout = [loss for _, loss in self._in_store.values() if loss is not None]
        return found

    def _agree_on_records(self) -> tuple[list[CheckpointRecord], list[str]]:
        """Return what rank 0 finds, so that all ranks read the same.

        Returns:
            The records, oldest first, and the prefixes of those that cannot be read.
        """
        found: list[CheckpointRecord] = []
        damaged: list[str] = []
        if dist.get_rank() == 0:
            for prefix, record, problem in find_checkpoints(self._store):
                if record is None:
                    logger.warning("checkpoint cannot be read", extra={"why": problem})
                    damaged.append(prefix)
                else:
                    found.append(record)
        agreed: list[Any] = [found, damaged]
        dist.broadcast_object_list(agreed)
        return agreed[0], agreed[1]

    def _fetch_needed(
        self, record: CheckpointRecord, partition: Partition, folder: Path
    ) -> list[Path] | None:
        """Return the files that hold what this rank needs; None if one is not sound.

        This rank's own file comes first: where ranks are cut as they were, no other is looked at.
        """
        own = _file_name(dist.get_rank())
        files = sorted(record.files, key=lambda file: file.name != own)
        by_key = {record.prefix + file.name: file for file in files}
        try:
            return [
                self._fetch(record, by_key[key], folder)
                for key in needed_files(self._store, by_key, partition)
            ]
        except (IntegrityError, MissingInputError) as err:
            logger.warning("checkpoint cannot be read", extra={"why": err})
            return None

    def _fetch(self, record: CheckpointRecord, file: CheckpointFile, folder: Path) -> Path:
        try:
            return fetch(self._store, record, file, folder)
        except IntegrityError as err:
            logger.warning("checkpoint is read once more", extra={"why": err})
            return fetch(self._store, record, file, folder)

    def _set_aside(self, prefixes: Sequence[str]) -> None:
        """Take records of damaged checkpoints away, so that they neither count nor are in the way.

        What killed saves left is removed too.
        """
        if dist.get_rank() == 0:
            for prefix in prefixes:
                logger.warning("checkpoint set aside", extra={"prefix": prefix})
                self._store.put_bytes(self._store.get_bytes(prefix + MARKER), prefix + DAMAGED)
                self._store.delete(prefix + MARKER)
            self._remove_litter()
        dist.barrier()

    def _remove_litter(self) -> None:
        """Remove what killed saves left."""
        names: dict[str, set[str]] = {}
        for stored in self._store.list("step-"):
            prefix, _, name = stored.key.rpartition("/")
            names.setdefault(f"{prefix}/", set()).add(name)
        for prefix, found in names.items():
            if not found & {MARKER, DAMAGED}:
                self._store.delete_tree(prefix)

    def end_phase(self) -> None:
        """Keep only what the policy keeps for good; the phase's weights are on disk."""
        self.drain()
        if dist.get_rank() == 0:
            kept = reasons_to_keep(self._in_store.values(), self._policy)
            for_good = {step for step, reasons in kept.items() if outlives_phase(reasons)}
            self._remove_all_but(for_good)
            if not for_good:
                self._store.delete_tree("")
            shutil.rmtree(self._staging, ignore_errors=True)
        dist.barrier()

    def _make_staging(self) -> Path:
        self._staging.mkdir(parents=True, exist_ok=True)
        return self._staging


def _file_name(rank: int) -> str:
    """Return what a rank's file of a checkpoint is called."""
    return f"rank-{rank:05d}.safetensors"
