"""Questions to the table of all clips' scores, a column per score: thresholds are queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from svd.config.curation import Threshold
from svd.curation.filter.thresholds import Bounds, join_bounds, place_of
from svd.errors import ConfigError, IntegrityError, MissingInputError

_OWN_COLUMNS: Final = ("clip_id", "video_id", "group_id", "num_frames", "duration_s")


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Asks a score table questions, through DuckDB.

    Attributes:
        path: Of the Parquet file.
        scores: Names of its scores, sorted.
        num_clips: Rows.
        seconds: Of video in all clips.
    """

    path: Path
    scores: tuple[str, ...]
    num_clips: int
    seconds: float
    _connection: Any  # DuckDBPyConnection; DuckDB has no stubs

    @classmethod
    def open(cls, path: Path) -> "ScoreTable":
        """Open a table.

        Raises:
            MissingInputError: It is not there.
            IntegrityError: It is no Parquet, or has no column of durations.
        """
        import duckdb

        if not path.is_file():
            raise MissingInputError(f"{path} is not there: run `svd annotate` to make it")
        connection = duckdb.connect()
        try:
            described = connection.execute(
                "DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]
            ).fetchall()
            num, seconds = connection.execute(
                "SELECT count(*), coalesce(sum(duration_s), 0) FROM read_parquet(?)", [str(path)]
            ).fetchall()[0]
        except duckdb.Error as err:
            first_line = str(err).splitlines()[0]
            raise IntegrityError(f"{path}: not a score table: {first_line}") from err
        names = sorted(row[0] for row in described if row[0] not in _OWN_COLUMNS)
        return cls(path, tuple(names), num, seconds, connection)

    def ask(self, select: str) -> list[tuple[Any, ...]]:
        """Return the rows of "SELECT <select>", in which {table} stands for the table."""
        table = "read_parquet('" + str(self.path).replace("'", "''") + "')"
        rows: list[tuple[Any, ...]] = self._connection.execute(
            "SELECT " + select.replace("{table}", table)
        ).fetchall()
        return rows

    def num_with(self, score: str) -> int:
        """Return how many clips have a score."""
        return int(self.ask(f"count({self.column(score)}) FROM {{table}}")[0][0])

    def column(self, score: str) -> str:
        """Return a score's column as SQL writes it.

        Raises:
            ConfigError: The table has no such column.
        """
        if score not in self.scores:
            raise ConfigError(f"no clip has the score {score}; clips have: {self._known()}")
        return '"' + score.replace('"', '""') + '"'

    def values_at(
        self, score: str, shares: Sequence[float], *, from_top: bool = False
    ) -> tuple[float | None, ...]:
        """Return the bounds that drop these shares of the clips with a score, as `filter` does.

        None where no clip has it.
        """
        num = self.num_with(score)
        if not num:
            return (None,) * len(shares)
        places = [place_of(share, num) for share in shares]
        # Half a place on, so that no rounding inside DuckDB moves the rank.
        ranks = [((num - 1 - place if from_top else place) + 0.5) / num for place in places]
        asked = self.ask(f"quantile_disc({self.column(score)}, {ranks!r}) FROM {{table}}")
        return tuple(asked[0][0])

    def bounds(self, score: str, threshold: Threshold) -> Bounds:
        """Return the bounds in force, shares resolved over this table."""
        low, high = threshold.drop_lowest, threshold.drop_highest
        by_share = Bounds(
            low=None if low is None else self.values_at(score, [low])[0],
            high=None if high is None else self.values_at(score, [high], from_top=True)[0],
        )
        return join_bounds(threshold, by_share=by_share)

    def _known(self) -> str:
        return ", ".join(self.scores) or "no scores at all"
