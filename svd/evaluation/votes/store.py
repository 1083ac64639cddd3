"""Where votes are kept: SQLite, appended to and never changed, one vote per ballot.

A ballot is the right of one rater to vote once on one pair. It is written before the pair is
shown, so a rater who comes back gets the same pair on the same sides, and a vote that is sent
twice (a lost answer, an impatient finger) counts once. Raters are known by the hash of a secret
that only their browser has.
"""

import hashlib
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from svd.errors import IntegrityError
from svd.types.vote import Answer, Study, StudyPair, Vote

DATABASE = "votes.sqlite"
HELD_S = 1800.0  # a pair that somebody has open is not given to others for so long
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS raters (rater TEXT PRIMARY KEY, joined_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ballots (
  ballot TEXT PRIMARY KEY, rater TEXT NOT NULL REFERENCES raters, pair TEXT NOT NULL,
  first_is_left INTEGER NOT NULL, issued_at REAL NOT NULL, UNIQUE (rater, pair)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS votes (
  ballot TEXT PRIMARY KEY REFERENCES ballots, quality TEXT NOT NULL, following TEXT,
  watched_ms INTEGER NOT NULL, replays INTEGER NOT NULL, given_at REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS votes_stay BEFORE UPDATE ON votes
  BEGIN SELECT RAISE(ABORT, 'votes are never changed'); END;
CREATE TRIGGER IF NOT EXISTS votes_are_kept BEFORE DELETE ON votes
  BEGIN SELECT RAISE(ABORT, 'votes are never deleted'); END;
"""


class Ballot(NamedTuple):
    """A pair as one rater sees it.

    Attributes:
        ballot: Its secret name.
        pair: What is compared.
        first_is_left: Which side the pair's first video is on.
    """

    ballot: str
    pair: StudyPair
    first_is_left: bool


class Given(NamedTuple):
    """A rater's answers by side, and how they came about."""

    quality: str  # "left", "right" or "tie"
    following: str | None
    watched_ms: int
    replays: int


class Refused(Exception):  # noqa: N818 - it is an answer to a request, not a fault of ours
    """A vote that is not taken.

    Attributes:
        status: HTTP status that says why.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class VoteStore:
    """The votes of one study; safe to use from several threads and processes at once."""

    def __init__(self, folder: Path, study: Study) -> None:
        self._path = folder / DATABASE
        self._study = study
        self._pairs = {pair.pair_id: pair for pair in study.pairs}
        self._asks = {item.item_id: item.asks for item in study.items}
        with self._connection() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            db.execute(
                "INSERT OR IGNORE INTO facts VALUES ('study', ?)", (self._study.content_hash(),)
            )
            (found,) = db.execute("SELECT value FROM facts WHERE name = 'study'").fetchone()
        if found != study.content_hash():
            raise IntegrityError(
                f"{self._path}: its votes are of another study; study.json was changed"
            )

    def join(self) -> str:
        """Admit a new rater; return the secret that its browser keeps."""
        secret = secrets.token_urlsafe(32)
        with self._writing() as db:
            db.execute("INSERT INTO raters VALUES (?, ?)", (_pseudonym(secret), time.time()))
        return secret

    def knows(self, secret: str) -> bool:
        """Return whether a secret is a rater's."""
        with self._connection() as db:
            row = db.execute("SELECT 1 FROM raters WHERE rater = ?", (_pseudonym(secret),))
            return row.fetchone() is not None

    def next_ballot(self, secret: str) -> Ballot | None:
        """Return the pair a rater has open, else a new one; None when nothing is left to ask.

        Raises:
            Refused: The rater is not known.
        """
        rater = _pseudonym(secret)
        with self._writing() as db:
            self._check_rater(db, rater)
            row = db.execute(
                "SELECT ballot, pair, first_is_left FROM ballots LEFT JOIN votes USING (ballot)"
                " WHERE rater = ? AND given_at IS NULL ORDER BY issued_at LIMIT 1",
                (rater,),
            ).fetchone()
            if row is not None:
                return Ballot(row[0], self._pairs[row[1]], bool(row[2]))
            pair = self._choose(db, rater)
            if pair is None:
                return None
            ballot = Ballot(
                secrets.token_urlsafe(24), pair, self._draw(rater, pair, "side") % 2 == 0
            )
            db.execute(
                "INSERT INTO ballots VALUES (?, ?, ?, ?, ?)",
                (ballot.ballot, rater, pair.pair_id, ballot.first_is_left, time.time()),
            )
            return ballot

    def give(self, secret: str, ballot: str, given: Given) -> bool:
        """Take a vote; return False if this very vote was taken before.

        Raises:
            Refused: The rater or ballot is not known, the ballot is another rater's, it was
                already voted with otherwise, or the answers are not those that were asked for.
        """
        rater = _pseudonym(secret)
        with self._writing() as db:
            self._check_rater(db, rater)
            row = db.execute(
                "SELECT rater, pair, first_is_left FROM ballots WHERE ballot = ?", (ballot,)
            ).fetchone()
            if row is None or row[0] != rater:  # alike, so that nobody can try out ballots
                raise Refused(403, "this ballot is not yours")
            pair = self._pairs[row[1]]
            asked = self._asks[pair.item_id]
            if asked != (given.following is not None):
                raise Refused(422, "answer the questions that were asked, and no others")
            if "tie" in (given.quality, given.following) and not self._study.ties:
                raise Refused(422, "this study asks for a choice")
            quality = _unblind(given.quality, first_is_left=row[2])
            following = given.following and _unblind(given.following, first_is_left=row[2])
            before = db.execute(
                "SELECT quality, following FROM votes WHERE ballot = ?", (ballot,)
            ).fetchone()
            if before is not None:
                if before != (quality, following):
                    raise Refused(409, "this pair was already voted on")
                return False
            db.execute(
                "INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?)",
                (ballot, quality, following, given.watched_ms, given.replays, time.time()),
            )
            return True

    def progress(self, secret: str) -> tuple[int, int]:
        """Return how many pairs a rater has voted on, and how many more it may be asked."""
        rater = _pseudonym(secret)
        with self._connection() as db:
            (done,) = db.execute(
                "SELECT COUNT(*) FROM ballots JOIN votes USING (ballot) WHERE rater = ?", (rater,)
            ).fetchone()
            (is_open,) = db.execute(
                "SELECT COUNT(*) FROM ballots LEFT JOIN votes USING (ballot)"
                " WHERE rater = ? AND given_at IS NULL",
                (rater,),
            ).fetchone()
            left = len(self._open_pairs(db, rater))
        return done, is_open + left + left // (self._study.check_every - 1)

    def votes(self) -> tuple[Vote, ...]:
        """Return all votes in the order they came, checks among them."""
        with self._connection() as db:
            rows = db.execute(
                "SELECT pair, rater, quality, following, first_is_left, watched_ms, replays,"
                " given_at FROM votes JOIN ballots USING (ballot) ORDER BY votes.rowid"
            ).fetchall()
        return tuple(self._vote(*row) for row in rows)

    def _vote(
        self,
        pair_id: str,
        rater: str,
        quality: Answer,
        following: Answer | None,
        first_is_left: int,
        watched_ms: int,
        replays: int,
        given_at: float,
    ) -> Vote:
        pair = self._pairs[pair_id]
        return Vote(
            pair_id=pair_id,
            item_id=pair.item_id,
            first_model=pair.first_model,
            second_model=pair.second_model,
            is_check=pair.is_check,
            rater=rater[:12],
            quality=quality,
            following=following,
            first_was_left=bool(first_is_left),
            watched_ms=watched_ms,
            replays=replays,
            given_at=given_at,
        )

    def _choose(self, db: sqlite3.Connection, rater: str) -> StudyPair | None:
        """Return a check if one is due, else the pair with the fewest votes, drawn among equals."""
        seen = {row[0] for row in db.execute("SELECT pair FROM ballots WHERE rater = ?", (rater,))}
        open_pairs = self._open_pairs(db, rater)
        checks = [p for p in self._study.pairs if p.is_check and p.pair_id not in seen]
        if (
            open_pairs
            and checks
            and len(seen) % self._study.check_every == self._check_place(rater)
        ):
            return min(checks, key=lambda pair: self._draw(rater, pair, "order"))
        if not open_pairs:
            return None
        return min(
            open_pairs, key=lambda pair: (open_pairs[pair], self._draw(rater, pair, "order"))
        )

    def _open_pairs(self, db: sqlite3.Connection, rater: str) -> dict[StudyPair, int]:
        """Return pairs this rater may still be given, with the votes they have or may soon have."""
        rows = db.execute(
            "SELECT pair, rater FROM ballots LEFT JOIN votes USING (ballot)"
            " WHERE given_at IS NOT NULL OR issued_at > ?",
            (time.time() - HELD_S,),
        ).fetchall()
        counts = Counter(pair for pair, _ in rows)
        own = {row[0] for row in db.execute("SELECT pair FROM ballots WHERE rater = ?", (rater,))}
        return {
            pair: counts[pair.pair_id]
            for pair in self._study.pairs
            if not pair.is_check
            and pair.pair_id not in own
            and counts[pair.pair_id] < self._study.votes_per_pair
        }

    def _check_place(self, rater: str) -> int:
        """Return where among its pairs a rater's checks come: nobody else's place."""
        return int(rater[:8], 16) % self._study.check_every

    def _draw(self, rater: str, pair: StudyPair, purpose: str) -> int:
        text = f"{self._study.seed} {rater} {pair.pair_id} {purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def _check_rater(self, db: sqlite3.Connection, rater: str) -> None:
        if db.execute("SELECT 1 FROM raters WHERE rater = ?", (rater,)).fetchone() is None:
            raise Refused(401, "this browser is not known here: open the page again")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = FULL")  # a vote that was answered for survives a crash
            yield db
        finally:
            db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time from the first read on, so that two never decide on old counts."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def _pseudonym(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _unblind(side: str, *, first_is_left: bool) -> Answer:
    if side == "tie":
        return "tie"
    return "first" if (side == "left") == bool(first_is_left) else "second"
