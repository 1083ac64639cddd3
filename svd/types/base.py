"""What every record that touches disk or crosses a process has in common."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from svd.atomic import new_file
from svd.errors import IntegrityError

_PROBLEMS_SAID = 3  # of a malformed record; one is often the cause of the others


class Record(BaseModel):
    """A frozen, strict record: no unknown keys, no coercion, canonical JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def canonical_json(self) -> str:
        """Return the one JSON text of this record: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def content_hash(self) -> str:
        """Return the sha256 (hex) of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @classmethod
    def parse(cls, text: str, *, origin: str) -> Self:
        """Read one record from JSON text.

        Args:
            text: JSON as written by `canonical_json`.
            origin: Where the text came from; named in the error.

        Raises:
            IntegrityError: The text is not a record of this class.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as err:
            said = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']}"
                for problem in err.errors(include_url=False)[:_PROBLEMS_SAID]
            )
            raise IntegrityError(f"{origin}: not a {cls.__name__} record: {said}") from err


R = TypeVar("R", bound=Record)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines, atomically."""
    with new_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(record.canonical_json() + "\n")


def read_records(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the records of a JSON-lines file in their order."""
    with path.open(encoding="utf-8") as file:
        for index, line in enumerate(file):
            yield kind.parse(line, origin=f"{path}:{index + 1}")
