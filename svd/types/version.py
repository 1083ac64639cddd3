"""A version of a model, where it came from, and who let it be used."""

from typing import Literal

from pydantic import Field

from svd.types.artifact import MetricRecord, ModelRecord
from svd.types.base import Record
from svd.types.gate import Decision

StageLabel = Literal["candidate", "staging", "production"]


class SourceVideo(Record):
    """A source video and how much of it a dataset holds."""

    video_id: str  # sha256 of its bytes
    origin: str
    licence: str
    num_clips: dict[str, int]  # clips in shards, per split


class StageLineage(Record):
    """One stage as dvc.lock has it: what it read and what it made."""

    stage: str
    cmd: str
    params: dict[str, object]  # file -> the keys the stage read, with their values
    deps: dict[str, str]  # path -> md5, as DVC writes it
    outs: dict[str, str]  # likewise


class LineageRecord(Record):
    """From a model back to its sources; the clips themselves are in a table beside it."""

    stages: tuple[StageLineage, ...]  # in the order of the graph
    manifests: dict[str, str]  # index files of the data, path -> sha256
    num_videos: int = Field(ge=0)  # with at least one clip in a shard
    num_clips: int = Field(ge=0)  # in shards
    num_shards: int = Field(ge=0)
    licences: dict[str, int]  # licence -> source videos under it
    missing: tuple[str, ...]  # what could not be followed, as sentences; empty if whole


class VersionFile(Record):
    """A file of a version; its bytes are in the store under the name of their sha256."""

    path: str  # below the project's root, e.g. "models/finetune-i2v/weights.safetensors"
    sha256: str
    size_bytes: int = Field(ge=0)


class ModelVersion(Record):
    """registry/<name>/<version>.json: all that is known of a version."""

    name: str
    version: str | None  # "v0.1.3"; None for a candidate that was refused
    model: ModelRecord
    files: tuple[VersionFile, ...]  # the weights first
    code_commit: str | None
    uncommitted: tuple[str, ...]  # code that differed from the commit
    params_sha256: str  # of the recipe's canonical JSON
    dvc_lock_sha256: str | None  # of what dvc.lock says of the stages that made it
    metrics: tuple[MetricRecord, ...]
    decision: Decision
    lineage: LineageRecord
    lineage_table_sha256: str | None  # clip by clip, in the store; None if lineage is missing
    wandb_run_id: str  # of the run that trained it

    @property
    def weights_sha256(self) -> str:
        """The checkpoint's hash."""
        return self.files[0].sha256

    def identity(self) -> str:
        """Name what makes this version itself; equal ones are the same version.

        Left out are the commit (the code that matters is in the lock, and a commit to the docs
        makes no new model) and the decision (which also depends on what is in production).
        """
        bare = {
            "version": None,
            "code_commit": None,
            "uncommitted": (),
            "decision": Decision(passed=True, verdicts=()),
        }
        return self.model_copy(update=bare).content_hash()


class Candidate(Record):
    """reports/register/candidate.json: what the register stage decided."""

    status: Literal["registered", "refused"]
    reasons: tuple[str, ...]  # why it was refused; empty if it was not
    version: ModelVersion


class Promotion(Record):
    """Why a version got a stage; kept in the message of the tag that gives it."""

    name: str
    version: str
    stage: StageLabel
    action: Literal["register", "promote", "rollback"]
    approver: str
    note: str = ""
    replaced: str | None  # version that had the stage before
    decision: Decision  # of the gates at this moment
    weights_sha256: str
    dvc_lock_sha256: str | None
    wandb_run_id: str
