"""Reading what the stages left: absent is None, damaged is said on the page."""

import base64
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from svd.errors import IntegrityError
from svd.runtime.workspace import Workspace
from svd.types.base import Record, read_records

logger = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".mp4": "video/mp4"}


@dataclass(slots=True)
class Sources:
    """What the page is made from.

    Attributes:
        workspace: The checkout.
        budget_bytes: How much of pictures and videos may still go into the page.
        problems: Sentences about files that are there but cannot be read.
        num_left_out: Pictures and videos that found no room.
    """

    workspace: Workspace
    budget_bytes: int
    problems: list[str] = field(default_factory=list)
    num_left_out: int = 0

    def record(self, path: Path, kind: type[R]) -> R | None:
        """Return the record of a JSON file, or None."""
        if not path.is_file():
            return None
        try:
            return kind.parse(path.read_text(encoding="utf-8"), origin=self._name(path))
        except IntegrityError as err:
            self._damaged(err)
            return None

    def records(self, path: Path, kind: type[R]) -> tuple[R, ...]:
        """Return the records of a JSON-lines file; none if it is not there or damaged."""
        if not path.is_file():
            return ()
        try:
            return tuple(read_records(path, kind))
        except IntegrityError as err:
            self._damaged(err)
            return ()

    def rows(self, path: Path) -> tuple[dict[str, object], ...]:
        """Return the objects of a JSON-lines file whose fields are its writer's own affair."""
        if not path.is_file():
            return ()
        rows: list[dict[str, object]] = []
        for index, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as err:
                self._damaged(IntegrityError(f"{self._name(path)}:{index + 1}: {err}"))
                return tuple(rows)
            if isinstance(row, dict):
                rows.append(row)
        return tuple(rows)

    def embed_file(self, path: Path) -> str | None:
        """Return a picture or video as a data URI; None if it is not there or finds no room."""
        if not path.is_file():
            return None
        return self.embed(path.read_bytes(), _MIME[path.suffix])

    def embed(self, content: bytes, mime: str) -> str | None:
        """Return bytes as a data URI, or None if the page would grow too large."""
        text = base64.b64encode(content).decode()
        if len(text) > self.budget_bytes:
            self.num_left_out += 1
            return None
        self.budget_bytes -= len(text)
        return f"data:{mime};base64,{text}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.workspace.root).as_posix()

    def _damaged(self, err: IntegrityError) -> None:
        logger.warning("a file of the report cannot be read", extra={"error": str(err)})
        self.problems.append(str(err).splitlines()[0])
