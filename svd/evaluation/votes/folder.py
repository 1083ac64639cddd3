"""The records in a study's folder; reading them takes no torch, so a server starts at once."""

from pathlib import Path

from svd.errors import MissingInputError
from svd.types.vote import Judgement, Study

STUDY, JUDGEMENT = "study.json", "judge.json"


def read_study(folder: Path) -> Study:
    """Read a study.

    Raises:
        IntegrityError: study.json is malformed.
        MissingInputError: The folder holds none.
    """
    path = folder / STUDY
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: make one with `svd vote create`")
    return Study.parse(path.read_text(encoding="utf-8"), origin=str(path))


def read_judgement(folder: Path) -> Judgement | None:
    """Return what a judge said of a study; None if none was asked."""
    path = folder / JUDGEMENT
    if not path.is_file():
        return None
    return Judgement.parse(path.read_text(encoding="utf-8"), origin=str(path))
