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
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from svd.config.training import CheckpointConfig
from svd.errors import IntegrityError, MissingInputError, StoreError
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
    holds_any,
    load_shards,
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
        self._record: Future[None] | None = None  # rank 0: the last record, as it is written
        self._in_store: dict[int, Saved] = {}  # rank 0's thread
        self._heldout: list[float] = []  # of all that was saved; equal on all ranks

    @property
    def has_written(self) -> bool:
        """Whether there is a save under way of which this rank's part is written, or refused."""
        return self._mine is not None and self._mine.done()

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
        name = f"rank-{rank:05d}.safetensors"
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

    def _end(self, record: CheckpointRecord, *, is_refused: bool) -> None:
        step = record.state.step
        try:
            if is_refused:
                self._store.delete_tree(record.prefix)
                return
            self._store.put_bytes(
                Sealed.of(record).canonical_json().encode(), record.prefix + MARKER
            )
            self._in_store[step] = Saved(step, record.state.heldout_loss)
            logger.info("checkpoint saved", extra={"step": step, "size_bytes": record.size_bytes})
            self._remove_all_but(reasons_to_keep(self._in_store.values(), self._policy))
        except StoreError as err:
            logger.warning("checkpoint not written", extra={"step": step, "why": err})

    def _remove_all_but(self, kept: Collection[int]) -> None:
        for step in [step for step in self._in_store if step not in kept]:
            # The record first: without it, what a kill leaves here is no checkpoint.
            self._store.delete(prefix_of(step) + MARKER)
            self._store.delete_tree(prefix_of(step))
            del self._in_store[step]

    def drain(self) -> None:
        """End the save under way and wait until its record is written."""
        self.settle()
        if self._record is not None:
            self._record.result()
        dist.barrier()

    def would_keep_as_best(self, heldout_loss: float) -> bool:
        """Say whether the state that has this held-out loss is among the best so far."""
        best = sorted(self._heldout)[: self._policy.keep_best]
        return len(best) < self._policy.keep_best or (bool(best) and heldout_loss < best[-1])

    def load_latest(self, partition: Partition, shards: Shards) -> PhaseState | None:
        """Fill the shards from the newest sound checkpoint; None if there is none.

        A damaged one is set aside with a warning, and the one before is taken.

        Raises:
            StoreError: The store failed.
        """
        records = self._agree_on_records()
        found = None
        while records and found is None:
            with tempfile.TemporaryDirectory(dir=self._make_staging()) as folder:
                paths = self._fetch_needed(records[-1], partition, Path(folder))
                if any_rank(paths is None, self._device):
                    self._set_aside(records.pop())
                    continue
                load_shards(paths or [], partition, shards)
                found = records[-1].state
        self._in_store = {r.state.step: Saved(r.state.step, r.state.heldout_loss) for r in records}
        self._heldout = [loss for _, loss in self._in_store.values() if loss is not None]
        return found

    def _agree_on_records(self) -> list[CheckpointRecord]:
        """Return what rank 0 finds, oldest first, so that all ranks read the same."""
        found: list[list[CheckpointRecord]] = [[]]
        if dist.get_rank() == 0:
            for prefix, record, problem in list(find_checkpoints(self._store)):
                if record is None:
                    logger.warning("checkpoint set aside", extra={"why": problem})
                    self._take_record_away(prefix)
                else:
                    found[0].append(record)
            self._remove_litter()
        dist.broadcast_object_list(found)
        return found[0]

    def _fetch_needed(
        self, record: CheckpointRecord, partition: Partition, folder: Path
    ) -> list[Path] | None:
        """Return the files that hold anything of this rank's; None if one is not sound."""
        try:
            return [
                fetch(self._store, record, file, folder)
                for file in record.files
                if holds_any(self._store, record.prefix + file.name, partition)
            ]
        except (IntegrityError, MissingInputError) as err:
            logger.warning("checkpoint set aside", extra={"why": err})
            return None

    def _set_aside(self, record: CheckpointRecord) -> None:
        """Take a damaged checkpoint's record away, so that it neither counts nor is in the way."""
        if dist.get_rank() == 0:
            self._take_record_away(record.prefix)
        dist.barrier()

    def _take_record_away(self, prefix: str) -> None:
        self._store.put_bytes(self._store.get_bytes(prefix + MARKER), prefix + DAMAGED)
        self._store.delete(prefix + MARKER)

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
