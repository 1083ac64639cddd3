"""What transformers loads from a folder: quietly, and never from a network."""

from pathlib import Path
from typing import Any

from svd.errors import CheckpointError


def load_folder(kind: Any, folder: Path, **options: Any) -> Any:
    """Return `kind.from_pretrained` of a folder.

    Args:
        kind: One of transformers' Auto classes.
        folder: As save_pretrained writes it.
        **options: Of from_pretrained, which differ between the classes.

    Raises:
        CheckpointError: The folder does not hold what this class needs.
    """
    from transformers.utils import logging

    quieten: Any = logging.disable_progress_bar  # untyped; our own bar shows clips
    quieten()
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as err:
        reason = next(iter(str(err).strip().splitlines()), type(err).__name__)
        raise CheckpointError(f"{folder}: no {kind.__name__} loads from it: {reason}") from err
