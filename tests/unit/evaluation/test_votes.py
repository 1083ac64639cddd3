"""Votes: blind, counted once, refused when forged, and turned into a ranking."""

import http.client
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from vote_studies import make_study, serving, write_samples

from svd.errors import ConfigError, IntegrityError
from svd.evaluation.votes.access import MAX_BODY_BYTES, is_loopback, read_or_make_tokens
from svd.evaluation.votes.folder import read_study
from svd.evaluation.votes.judge import judge_study
from svd.evaluation.votes.matching import read_clip
from svd.evaluation.votes.page import as_json, read_results, render_results
from svd.evaluation.votes.standing import counted_votes, krippendorff_alpha, stand
from svd.evaluation.votes.store import DATABASE, Given, Refused, VoteStore
from svd.evaluation.votes.study import Entry, StudyOptions, create_study, read_prompts
from svd.types.vote import Study

QUICK = StudyOptions("bars", votes_per_pair=2, min_watch_s=0)
SCRIPT = "<script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """A study of 4 items, 3 models, one prompt of which is a script; nothing votes in it."""
    root = tmp_path_factory.mktemp("votes")
    prompts = {f"clip-{index:03d}": SCRIPT if index == 0 else "bars" for index in range(4)}
    study = make_study(root, num_items=4, options=QUICK, noises=(1.0, 20.0, 60.0), prompts=prompts)
    return root / "study", study


@pytest.fixture
def fresh(made: tuple[Path, Study], tmp_path: Path) -> tuple[Path, Study]:
    """The same study with a database of its own."""
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("study.json", "videos", "pictures"):
        (folder / name).symlink_to(made[0] / name)
    return folder, made[1]


def answer_all(store: VoteStore, secret: str, prefer: str = "first") -> int:
    num = 0
    while (ballot := store.next_ballot(secret)) is not None:
        wanted = prefer if not ballot.pair.is_check else "first"
        side = "left" if (wanted == "first") == ballot.first_is_left else "right"
        assert store.give(secret, ballot.ballot, Given(side, side, 900, 0))
        num += 1
    return num


def test_each_pair_gets_its_votes_and_no_rater_a_pair_twice(fresh: tuple[Path, Study]) -> None:
    folder, study = fresh
    store = VoteStore(folder, study)
    for _ in range(3):
        answer_all(store, store.join())
    votes = [vote for vote in store.votes() if not vote.is_check]
    assert set(Counter(vote.pair_id for vote in votes).values()) == {2}
    assert max(Counter((vote.pair_id, vote.rater) for vote in votes).values()) == 1
    assert Counter(vote.first_was_left for vote in votes)[True] not in {0, len(votes)}


def test_a_vote_sent_twice_counts_once_and_cannot_be_changed(fresh: tuple[Path, Study]) -> None:
    folder, study = fresh
    store = VoteStore(folder, study)
    secret = store.join()
    ballot = store.next_ballot(secret)
    assert ballot is not None
    assert store.next_ballot(secret) == ballot  # until it is voted on
    given = Given("left", "right", 900, 0)
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda _: store.give(secret, ballot.ballot, given), range(8)))
    assert sorted(new) == [False] * 7 + [True]
    with pytest.raises(Refused, match="already voted"):
        store.give(secret, ballot.ballot, given._replace(quality="right"))
    assert len(store.votes()) == 1
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        sqlite3.connect(folder / DATABASE).execute("UPDATE votes SET quality = 'second'")


def test_votes_of_a_changed_study_are_not_read(fresh: tuple[Path, Study]) -> None:
    folder, study = fresh
    VoteStore(folder, study)
    with pytest.raises(IntegrityError, match="another study"):
        VoteStore(folder, study.model_copy(update={"title": "other"}))


def test_raters_who_fail_the_checks_do_not_count(fresh: tuple[Path, Study]) -> None:
    folder, study = fresh
    store = VoteStore(folder, study)
    careful, careless = store.join(), store.join()
    answer_all(store, careful)
    while (ballot := store.next_ballot(careless)) is not None:
        side = "right" if ballot.first_is_left else "left"  # never the first, nor a sound one
        store.give(careless, ballot.ballot, Given(side, side, 10, 0))
    counted, inattentive = counted_votes(store.votes())
    assert len(inattentive) == 1
    assert len({vote.rater for vote in counted}) == 1
    standing = stand(study, counted, "quality")
    assert standing is not None
    assert standing.ratings.value[0] > standing.ratings.value[1] > standing.ratings.value[2]


def test_all_videos_of_an_item_have_one_form(tmp_path: Path) -> None:
    write_samples(tmp_path / "a", ["x"], noise=1.0, fps=8, t=8)
    write_samples(tmp_path / "b", ["x", "only-here"], noise=9.0, fps=16, t=24)
    entries = [Entry("a", tmp_path / "a"), Entry("b", tmp_path / "b")]
    study = create_study(entries, tmp_path / "study", StudyOptions("forms"))
    pair = study.pairs[0]
    clips = [
        read_clip(tmp_path / "study" / "videos" / f"{sha}.mp4")
        for sha in (pair.first_sha256, pair.second_sha256)
    ]
    assert clips[0].frames.shape == clips[1].frames.shape == (8, 32, 64, 3)
    assert clips[0].fps == clips[1].fps == 8
    assert [item.item_id for item in study.items] == ["x"]
    with pytest.raises(ConfigError, match="not empty"):
        create_study(entries, tmp_path / "study", StudyOptions("again"))


def test_the_judge_prefers_less_noise_and_is_never_pooled_with_people(
    fresh: tuple[Path, Study],
) -> None:
    folder, study = fresh
    judge_study(study, folder)
    found = read_results(folder, study, ())
    assert found.num_votes == 0
    quality = found.results[0]
    assert quality.people is None
    assert quality.judge is not None
    assert np.argmax(quality.judge.ratings.value) == 0
    store = VoteStore(folder, study)
    answer_all(store, store.join(), prefer="second")
    after = read_results(folder, study, store.votes()).results[0]
    assert after.people is not None
    assert after.judge is not None
    assert np.argmin(after.people.ratings.value) == 0  # people said the contrary: only they count
    np.testing.assert_array_equal(after.judge.ratings.value, quality.judge.ratings.value)
    assert after.judge.accuracy is not None
    assert after.judge.accuracy < 0.5
    tree = as_json(study, read_results(folder, study, store.votes()))
    assert json.loads(json.dumps(tree))["questions"]["quality"]["judge"]["judge"].startswith(
        "auto:"
    )
    page = render_results(folder, study, store.votes())
    assert "Automatic judge" in page
    assert "http" not in page.replace("http-equiv", "")


def test_krippendorffs_alpha_of_the_published_example() -> None:
    # Krippendorff 2011, section A: 10 units, two observers, binary data, alpha = 0.095.
    one, two = "0100000000", "1110010100"
    names = {"0": "first", "1": "second"}
    units = [(names[a], names[b]) for a, b in zip(one, two, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha([("first", "first"), ("second", "second")]) == 1


@pytest.fixture
def server(fresh: tuple[Path, Study]) -> Iterator[httpx.Client]:
    with serving(*fresh) as url, httpx.Client(base_url=url, headers={"Origin": url}) as client:
        client.get("/")
        yield client


def vote_of(client: httpx.Client, **changes: object) -> dict[str, object]:
    ballot = client.get("/api/ballot").json()["ballot"]
    vote = {"ballot": ballot, "quality": "left", "following": "left", "watched_ms": 5, "replays": 0}
    return {**vote, **changes}


def test_a_vote_of_another_rater_or_of_nobody_is_refused(server: httpx.Client) -> None:
    vote = vote_of(server)
    with httpx.Client(base_url=server.base_url, headers=server.headers) as other:
        assert other.post("/api/vote", json=vote).status_code == 401  # no rater
        other.cookies["svd_rater"] = "made-up"
        assert other.post("/api/vote", json=vote).status_code == 401
        assert other.get("/api/ballot").status_code == 401
        other.cookies.clear()
        other.get("/")
        assert other.post("/api/vote", json=vote).status_code == 403  # not its ballot
    assert server.post("/api/vote", json={**vote, "ballot": "x" * 32}).status_code == 403
    assert server.post("/api/vote", json=vote).status_code == 201
    assert server.post("/api/vote", json=vote).status_code == 200  # again: counted once
    assert server.post("/api/vote", json={**vote, "quality": "right"}).status_code == 409


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": "first"},
        {"quality": "tie"},
        {"following": None},
        {"watched_ms": -1},
        {"more": 1},
    ],
    ids=["no-side", "no-ties-here", "question-unanswered", "negative-time", "unknown-key"],
)
def test_a_malformed_vote_is_refused(server: httpx.Client, changes: dict[str, object]) -> None:
    assert server.post("/api/vote", json=vote_of(server, **changes)).status_code == 422


def test_a_body_too_large_is_refused_whatever_its_header_says(server: httpx.Client) -> None:
    assert server.post("/api/vote", content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413

    def endless() -> Iterator[bytes]:  # chunked: no length is claimed
        for _ in range(64):
            yield b"x" * 1024

    assert server.post("/api/vote", content=endless()).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/videos/../../study.json",
        "/videos/..%2f..%2fvotes.sqlite.mp4",
        "/videos/%2e%2e/votes.sqlite",
        f"/videos/{'0' * 64}.mp4",
        "/videos/study.json.mp4",
        "/tokens.json",
        "/votes.sqlite",
    ],
)
def test_no_name_from_outside_becomes_a_path(server: httpx.Client, path: str) -> None:
    target = urlsplit(str(server.base_url))
    connection = http.client.HTTPConnection(target.hostname or "", target.port)
    connection.request("GET", path)  # as it stands: a client library would tidy it up
    assert connection.getresponse().status in {404, 422}
    connection.close()


def test_pages_elsewhere_can_neither_vote_nor_pretend_to_be_the_server(
    server: httpx.Client,
) -> None:
    vote = vote_of(server)
    for origin in ("https://evil.example", "null"):
        assert server.post("/api/vote", json=vote, headers={"Origin": origin}).status_code == 403
    assert server.get("/api/ballot", headers={"Host": "evil.example"}).status_code == 421
    policy = server.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy


def test_nothing_the_page_is_told_names_a_model(server: httpx.Client) -> None:
    told = server.get("/api/ballot").text + server.get("/").text + str(server.cookies)
    assert "model-" not in told
    assert server.get(server.get("/api/ballot").json()["left"]).headers["etag"]


def test_elsewhere_a_token_is_asked_for_and_a_stale_one_refused(fresh: tuple[Path, Study]) -> None:
    folder, study = fresh
    old = read_or_make_tokens(folder, renew=False)
    assert read_or_make_tokens(folder, renew=False) == old
    assert (folder / "tokens.json").stat().st_mode & 0o077 == 0
    tokens = read_or_make_tokens(folder, renew=True)
    with serving(folder, study, tokens) as url, httpx.Client(base_url=url) as client:
        assert client.get("/").status_code == 401
        assert client.get("/", params={"token": old.rater}).status_code == 401
        client.cookies["svd_access"] = old.rater
        assert client.get("/api/ballot").status_code == 401
        client.cookies.clear()
        entered = client.get("/", params={"token": tokens.rater}, follow_redirects=True)
        assert entered.status_code == 200
        assert "token" not in str(entered.url)
        assert client.get("/api/ballot").status_code == 200
        assert client.get("/results").status_code == 403  # raters stay blind
        assert client.get(
            "/results", params={"token": tokens.owner}, follow_redirects=True
        ).is_success


def test_only_loopback_goes_without_a_token() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.8.0.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.4", "example.org", "")))


def test_a_server_starts_without_torch() -> None:
    code = "import sys, svd.evaluation.votes.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_study_is_read_as_it_was_written(made: tuple[Path, Study]) -> None:
    assert read_study(made[0]) == made[1]


def test_an_evaluations_folder_is_a_model_and_its_conditions_are_what_was_asked_for(
    tmp_path: Path,
) -> None:
    entries = []
    for name, noise in (("a", 1.0), ("b", 60.0)):
        samples = write_samples(tmp_path / name / "samples", ["x", "y"], noise=noise)
        for item in ("x", "y"):
            shutil.copy(samples / f"{item}.mp4", samples / f"{item}.truth.mp4")
            clean = read_clip(tmp_path / "a" / "samples" / f"{item}.mp4").frames[0]
            cv2.imwrite(str(samples / f"{item}.cond.png"), clean[..., ::-1])
        entries.append(Entry(name, tmp_path / name))
    folder = tmp_path / "study"
    study = create_study(entries, folder, StudyOptions("frames"))
    assert [item.item_id for item in study.items] == ["x", "y"]  # the truths are no samples
    assert all(item.asks and not item.prompt for item in study.items)
    with serving(folder, study) as url, httpx.Client(base_url=url) as client:
        client.get("/")
        ballot = client.get("/api/ballot").json()
        assert ballot["questions"] == ["quality", "following"]
        assert client.get(ballot["picture"]).headers["content-type"] == "image/png"
    judge_study(study, folder)
    following = next(
        one for one in read_results(folder, study, ()).results if one.asked == "following"
    )
    assert following.judge is not None
    assert np.argmax(following.judge.ratings.value) == 0  # whose first frame is the condition


def test_a_study_whose_making_was_killed_is_made_anew_and_is_the_same(tmp_path: Path) -> None:
    entries = [
        Entry(name, write_samples(tmp_path / name, ["x", "y"], noise=noise))
        for name, noise in (("a", 1.0), ("b", 9.0))
    ]
    whole = create_study(entries, tmp_path / "whole", StudyOptions("same"))
    (tmp_path / "killed" / "videos").mkdir(parents=True)
    (tmp_path / "killed" / "videos" / "new.mp4").write_bytes(b"half a vid")
    assert create_study(entries, tmp_path / "killed", StudyOptions("same")) == whole
    with pytest.raises(ConfigError, match="not empty"):
        create_study(entries, tmp_path / "killed", StudyOptions("same"))


def test_a_sampled_prompt_is_read_from_its_record_and_a_list_wins(tmp_path: Path) -> None:
    entries = [
        Entry(name, write_samples(tmp_path / name, ["x"], noise=noise))
        for name, noise in (("a", 1.0), ("b", 9.0))
    ]
    (tmp_path / "a" / "x.json").write_text('{"prompt": "a boat on the Seine"}')
    found = create_study(entries, tmp_path / "one", StudyOptions("one"))
    assert found.items[0].prompt == "a boat on the Seine"
    listed = tmp_path / "prompts.txt"
    listed.write_text("x\ta unicorn in a grove\n")
    found = create_study(
        entries, tmp_path / "two", StudyOptions("two"), prompts=read_prompts(listed)
    )
    assert found.items[0].prompt == "a unicorn in a grove"
    listed.write_text("no tab here\n")
    with pytest.raises(ConfigError, match="item, tab, prompt"):
        read_prompts(listed)
