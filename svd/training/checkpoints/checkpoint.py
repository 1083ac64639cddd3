"""What a checkpoint is: sharded safetensors files, and a sealed record that makes them one.

A checkpoint is a prefix of a store, `step-<step>/`, with one safetensors file per rank that holds
something and checkpoint.json, which names every file with its sha256 and carries a hash of its own
text. The record is written last, so a killed save leaves nothing that looks like a checkpoint.
Nothing is pickled.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from svd.errors import IntegrityError, MissingInputError
from svd.runtime.storage import open_store
from svd.runtime.store import Store
from svd.training.loop.history import LossWindow
from svd.training.stage.job import RunFolder, TrainingJob
from svd.types.base import Record
from svd.types.shard import StreamPosition

logger = logging.getLogger(__name__)

MARKER = "checkpoint.json"
DAMAGED = "checkpoint.damaged.json"  # what a checkpoint's record is called once it is set aside


class PhaseState(Record):
    """Where a phase is: all of its state that is no tensor."""

    step: int = Field(default=0, ge=0)  # optimizer steps made in this phase
    examples_seen: int = Field(default=0, ge=0)  # over all phases
    position: StreamPosition = StreamPosition()
    window: LossWindow = LossWindow()
    heldout_loss: float | None = None  # of the averaged weights, where this very step validated


class CheckpointFile(Record):
    """One rank's file."""

    name: str
    size_bytes: int
    sha256: str


class CheckpointRecord(Record):
    """All that is known of a checkpoint; its content_hash() names the whole of it."""

    format: str = "svd-training-2"
    state: PhaseState
    world_size: int = Field(gt=0)
    zero_stage: int = Field(ge=0, le=3)
    files: tuple[CheckpointFile, ...]

    @property
    def prefix(self) -> str:
        """Of its keys in the store."""
        return prefix_of(self.state.step)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


class Sealed(Record):
    """checkpoint.json: a record with its own hash, so that a change of any number in it shows."""

    checkpoint: CheckpointRecord
    sha256: str

    @classmethod
    def of(cls, checkpoint: CheckpointRecord) -> "Sealed":
        """Seal a record."""
        return cls(checkpoint=checkpoint, sha256=checkpoint.content_hash())


class Finding(NamedTuple):
    """One prefix of a store: a checkpoint, or why it is none."""

    prefix: str
    record: CheckpointRecord | None
    problem: str = ""


def prefix_of(step: int) -> str:
    """Return the prefix of a step's keys."""
    return f"step-{step:09d}/"


def home_of(job: TrainingJob, phase_index: int) -> str:
    """Return the URI of the store that holds a phase's checkpoints."""
    name = job.config.phases[phase_index].name
    if job.config.checkpoint.store is None:
        return str(RunFolder(Path(job.run)).phase(phase_index, name) / "checkpoints")
    base = job.config.checkpoint.store.rstrip("/")
    return f"{base}/{Path(job.run).name}/{phase_index}-{name}"


def open_home(job: TrainingJob, phase_index: int) -> Store:
    """Open the store that holds a phase's checkpoints."""
    return open_store(home_of(job, phase_index))


def find_checkpoints(store: Store) -> Iterator[Finding]:
    """Yield the checkpoints of a phase by their records alone, oldest first.

    What a killed save left, and what was set aside, is not among them.
    """
    for stored in store.list("step-"):
        prefix, _, name = stored.key.rpartition("/")
        if name != MARKER:
            continue
        try:
            yield Finding(f"{prefix}/", read_record(store, f"{prefix}/"))
        except (IntegrityError, MissingInputError) as err:
            yield Finding(f"{prefix}/", None, str(err))


def read_record(store: Store, prefix: str) -> CheckpointRecord:
    """Read a checkpoint's record.

    Raises:
        IntegrityError: It is torn, or is not what it was when it was written.
        MissingInputError: There is none.
    """
    key = prefix + MARKER
    place = f"{store.uri}/{key}"
    try:
        text = store.get_bytes(key).decode("utf-8")
    except UnicodeDecodeError as err:
        raise IntegrityError(f"{place} is not text") from err
    sealed = Sealed.parse(text, origin=place)
    if sealed.checkpoint.content_hash() != sealed.sha256 or sealed.checkpoint.prefix != prefix:
        raise IntegrityError(f"{place} does not have the sha256 it was sealed with")
    return sealed.checkpoint


def verify_files(store: Store, record: CheckpointRecord, folder: Path) -> Iterator[str]:
    """Read every file of a checkpoint again; yield a sentence for each that is not sound."""
    for file in record.files:
        try:
            fetch(store, record, file, folder)
        except (IntegrityError, MissingInputError) as err:
            yield str(err)


def fetch(store: Store, record: CheckpointRecord, file: CheckpointFile, folder: Path) -> Path:
    """Return a checkpoint's file on this machine, once it has shown its hash.

    Raises:
        IntegrityError: Its bytes are not those that were written.
        MissingInputError: It is not there.
    """
    return store.as_file(record.prefix + file.name, folder, sha256=file.sha256)
