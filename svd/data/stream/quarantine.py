"""Examples that could not be read: set aside, counted, and replaced; training goes on."""

import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from svd.config.data import StreamConfig
from svd.errors import IntegrityError
from svd.types.base import Record, read_records, write_records
from svd.types.shard import ShardManifest

logger = logging.getLogger(__name__)


_LEAST_LIMIT: Final = 100  # examples; below, a small data set would stop at its first bad file
_SHARE: Final = 0.01  # of the training examples


class QuarantinedExample(Record):
    """An example that the stream could not use, with its reason."""

    shard_uri: str
    example: int  # place in the shard's index
    clip_id: str | None  # None if the index itself cannot be read
    reason: str  # the sentence a person reads


class Quarantine:
    """The examples set aside so far; shared by the threads of a stream.

    What counts is the example, not its shard: whether an example is good is then a fact of its
    own bytes, and the stream stays the same wherever it is resumed. A shard that is missing, or
    whose index is unreadable, loses all its examples.
    """

    def __init__(
        self,
        *,
        limit: int,
        known: Iterable[QuarantinedExample] = (),
        keep_in: Path | None = None,
    ) -> None:
        """Begin with what is known.

        Args:
            limit: Examples to set aside before the data set as a whole is refused.
            known: Set aside by earlier attempts, on any rank: they count, and are not told again.
            keep_in: File to which what is found is added at once.
        """
        self._limit = limit
        self._keep_in = keep_in
        self._known = {(one.shard_uri, one.example) for one in known}
        self._found: dict[tuple[str, int], QuarantinedExample] = {}
        self._lock = threading.Lock()

    def add(self, found: QuarantinedExample) -> None:
        """Set an example aside.

        Raises:
            IntegrityError: More than `limit` are set aside. Every thread is told, also one that
                meets what another has found.
        """
        key = (found.shard_uri, found.example)
        with self._lock:
            is_new = key not in self._known and key not in self._found
            if is_new:
                self._found[key] = found
                if self._keep_in is not None:
                    save_quarantine(self._keep_in, [found])
            so_far = list(self._found.values())
        if is_new:
            logger.warning(
                "example set aside",
                extra={"shard": found.shard_uri, "clip": found.clip_id, "reason": found.reason},
            )
        self.check(so_far)

    def may_exceed(self, num_new: int) -> bool:
        """Say whether so many new ones, if all are different, are too many."""
        return num_new > 0 and len(self._known) + num_new > self._limit

    def check(self, found: Iterable[QuarantinedExample]) -> None:
        """Refuse the data set if too many examples are set aside.

        Args:
            found: Not known before; of one rank, or of several, which may have met the same.

        Raises:
            IntegrityError: With those known before they are more than `limit`.
        """
        reasons = {(one.shard_uri, one.example): one.reason for one in found}
        count = len(self._known | reasons.keys())
        if reasons and count > self._limit:
            last = list(reasons.values())[-1]
            raise IntegrityError(
                f"{count} examples could not be read, more than max_quarantined={self._limit}; "
                f"the last: {last}"
            )

    @property
    def records(self) -> tuple[QuarantinedExample, ...]:
        """All examples set aside that were not known before, by shard and place."""
        with self._lock:
            return tuple(self._found[key] for key in sorted(self._found))

    @property
    def num_shards(self) -> int:
        """Shards with an example set aside."""
        return len({record.shard_uri for record in self.records})

    @property
    def num_examples(self) -> int:
        """Examples set aside that were not known before."""
        return len(self._found)


def quarantine_limit(config: StreamConfig, manifest: ShardManifest) -> int:
    """Return how many unreadable examples of a data set a phase puts up with."""
    if config.max_quarantined is not None:
        return config.max_quarantined
    sizes = {(size.height, size.width) for size in config.sizes}
    count = sum(
        shard.num_examples
        for shard in manifest.shards
        if shard.split == "train" and (shard.height, shard.width) in sizes
    )
    return max(_LEAST_LIMIT, int(_SHARE * count))


def save_quarantine(path: Path, found: Iterable[QuarantinedExample]) -> None:
    """Add what was set aside to a file, each example once; earlier attempts' are kept."""
    known = {record.content_hash(): record for record in read_quarantine([path])}
    fresh = {record.content_hash(): record for record in found}
    if fresh.keys() - known.keys():
        write_records(path, (known | fresh).values())


def read_quarantine(paths: Iterable[Path]) -> Iterator[QuarantinedExample]:
    """Yield the examples set aside, each once, whichever ranks met them."""
    seen = set()
    for path in paths:
        if not path.is_file():
            continue
        for record in read_records(path, QuarantinedExample):
            key = (record.shard_uri, record.example)
            if key not in seen:
                seen.add(key)
                yield record
