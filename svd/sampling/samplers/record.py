"""model.json of a folder, without the weights and without torch."""

from pathlib import Path

from svd.errors import CheckpointError, MissingInputError
from svd.types.artifact import ModelRecord

RECORD_FILE = "model.json"


def read_model_record(folder: Path, *, kind: str) -> ModelRecord:
    """Return model.json of a folder.

    Raises:
        MissingInputError: The folder holds no model.
        IntegrityError: model.json is not a record.
        CheckpointError: It is a model of another kind.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise MissingInputError(
            f"{folder} holds no {kind} ({RECORD_FILE} is not there): run its stage, or make one "
            "from released weights with svd convert"
        )
    record = ModelRecord.parse(path.read_text(encoding="utf-8"), origin=str(path))
    if record.kind != kind:
        raise CheckpointError(f"{folder} holds a model of kind {record.kind}, not {kind}")
    return record
