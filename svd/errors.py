"""Every error the platform raises on purpose; the class says what the caller should do.

SvdError
|-- ConfigError            fix params.yaml, a recipe or an argument; the message names the key
|-- MediaError             skip this file, keep a record of it with the reason, go on
|-- IntegrityError         bytes are not what their name or hash says: stop, fetch them again
|-- MissingInputError      a stage's input or a weight is absent; the message says how to get it
|-- StoreError             the store failed after its retries; try again later
|-- CheckpointError        a checkpoint is malformed, incomplete or of another architecture
|-- TrainingDivergedError  loss or gradient is not finite; stopped before the update
|-- BudgetError            a run has spent its budget; raise it and run again to go on
|-- LaunchError            ranks could not be started, or a job of the launcher failed
|-- GateError              a model version may not be registered, promoted or fetched
"""

import errno
from typing import Final

_DISK_IS_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def is_disk_full(err: BaseException) -> bool:
    """Return whether an error says that nothing more can be written, which is no file's fault."""
    return isinstance(err, OSError) and err.errno in _DISK_IS_FULL


class SvdError(Exception):
    """Base of all errors raised on purpose; its text is one sentence for a person."""


class ConfigError(SvdError):
    """A parameter is unknown, of the wrong type, out of bounds or in conflict with another."""


class MediaError(SvdError):
    """A media file cannot be used.

    Attributes:
        uri: The file.
        reason: Short machine-readable class of the fault, e.g. "no-video-stream".
    """

    def __init__(self, uri: str, reason: str, detail: str) -> None:
        super().__init__(f"{uri}: {reason}: {detail}")
        self.uri = uri
        self.reason = reason
        self.detail = detail


class IntegrityError(SvdError):
    """Stored bytes do not have the hash they are named by."""


class MissingInputError(SvdError):
    """A file that a stage needs is not there; the message says how to make or get it."""


class StoreError(SvdError):
    """The object store did not answer, refused, or failed after all retries."""


class CheckpointError(SvdError):
    """A checkpoint does not fit: missing, extra or mis-shaped tensors, or a malformed file."""


class TrainingDivergedError(SvdError):
    """Loss or gradient norm is not finite; raised before the optimizer touches the weights."""


class BudgetError(SvdError):
    """A run has used up its budget; its state is saved, and a larger one lets it go on."""


class LaunchError(SvdError):
    """A launcher could not start ranks, or the job it started failed."""


class GateError(SvdError):
    """The registry refuses: a gate failed, lineage is missing, or a race was lost."""
