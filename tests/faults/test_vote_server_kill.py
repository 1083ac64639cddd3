"""The server of a study is killed without warning: raters go on as if nothing had been."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from svd.evaluation.votes.store import VoteStore
from svd.evaluation.votes.study import StudyOptions
from svd.types.vote import Study
from tests.unit.evaluation.vote_studies import make_study

pytestmark = [pytest.mark.faults, pytest.mark.timeout(200)]
ROOT = Path(__file__).parents[2]
NUM_KILLS = 3


class Server:
    """`svd vote serve` as a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "svd.cli", "vote", "serve", str(folder), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *options],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        self.url = line.split()[-1].rstrip("/")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Study]:
    options = StudyOptions("Bars", votes_per_pair=1, min_watch_s=0)
    return tmp_path / "study", make_study(tmp_path, num_items=8, options=options)


def test_every_vote_that_was_answered_for_outlives_a_kill(made: tuple[Path, Study]) -> None:
    folder, study = made
    cookies, answered = httpx.Cookies(), 0
    for kill in range(NUM_KILLS + 1):
        server = Server(folder)
        with httpx.Client(
            base_url=server.url, cookies=cookies, headers={"Origin": server.url}
        ) as client:
            assert client.get("/").status_code == 200
            cookies = client.cookies
            while (ballot := client.get("/api/ballot").json()["ballot"]) is not None:
                vote = {"ballot": ballot, "quality": "left", "following": "right"}
                given = client.post("/api/vote", json={**vote, "watched_ms": 9, "replays": 0})
                assert given.status_code == 201
                answered += 1
                if kill < NUM_KILLS and answered % 2 == 0:
                    break
        ended = server.end(signal.SIGINT if kill == NUM_KILLS else signal.SIGKILL)
    assert ended == 128 + signal.SIGINT  # stopped by hand, without complaint
    votes = VoteStore(folder, study).votes()
    assert len(votes) == answered
    assert len({vote.rater for vote in votes}) == 1  # the cookie is good after each restart
    real = Counter(vote.pair_id for vote in votes if not vote.is_check)
    assert real == Counter(pair.pair_id for pair in study.pairs if not pair.is_check)
