"""Votes as a file for other programs: a row each, nothing left out."""

import csv
from collections.abc import Sequence
from pathlib import Path

from svd.atomic import new_file
from svd.errors import ConfigError
from svd.types.base import write_records
from svd.types.vote import Vote


def export_votes(votes: Sequence[Vote], path: Path) -> None:
    """Write votes as JSON lines or CSV, by the file's suffix.

    Raises:
        ConfigError: Another suffix.
    """
    if path.suffix == ".jsonl":
        write_records(path, votes)
        return
    if path.suffix != ".csv":
        raise ConfigError(f"{path}: votes are written as .jsonl or .csv")
    with new_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, list(Vote.model_fields))
        rows.writeheader()
        rows.writerows(vote.model_dump(mode="json") for vote in votes)
