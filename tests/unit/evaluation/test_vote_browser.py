"""Two raters in real browsers at once, one of whom goes away and comes back."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from vote_studies import make_study, serving

from svd.evaluation.votes.access import read_or_make_tokens
from svd.evaluation.votes.store import Given, VoteStore
from svd.evaluation.votes.study import StudyOptions
from svd.types.vote import Study

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH"),
]
NUM_PAIRS = 40
SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Study]:
    prompts = {f"clip-{i:03d}": f"bars that move {SCRIPT}" for i in range(NUM_PAIRS)}
    options = StudyOptions("Bars", votes_per_pair=2, min_watch_s=0)
    return tmp_path / "study", make_study(
        tmp_path, num_items=NUM_PAIRS, options=options, prompts=prompts
    )


@pytest.fixture
def url(made: tuple[Path, Study]) -> Iterator[str]:
    with serving(*made) as address:
        yield address


@pytest.fixture(scope="module")
def browsers() -> Iterator[tuple[object, object]]:
    with sync_api.sync_playwright() as playwright:
        launched = [
            playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) for _ in range(2)
        ]
        yield launched[0], launched[1]
        for one in launched:
            one.close()


def wait_for_pair(page: object, *, other_than: str = "") -> str:
    page.wait_for_function(
        "(before) => document.body.dataset.ballot !== undefined"
        " && document.body.dataset.ballot !== before",
        arg=other_than,
        timeout=60_000,
    )
    return page.evaluate("document.body.dataset.ballot")


def vote_by_keys(page: object, before: str) -> str:
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("b")
    page.wait_for_selector("#send:not(:disabled)", timeout=60_000)
    page.keyboard.press("Enter")
    return wait_for_pair(page, other_than=before)


def vote_by_touch(page: object, before: str) -> str:
    page.locator(".pair figure[data-side=right]").tap()
    page.locator("#following button[data-side=left]").tap()
    page.wait_for_selector("#send:not(:disabled)", timeout=60_000)
    page.locator("#send").tap()
    return wait_for_pair(page, other_than=before)


@pytest.mark.slow
def test_two_browsers_at_once_one_comes_back_and_no_vote_is_lost_or_doubled(
    made: tuple[Path, Study], url: str, browsers: tuple[object, object], tmp_path: Path
) -> None:
    desk = browsers[0].new_context(**DESKTOP)
    phone = browsers[1].new_context(**PHONE)
    at_desk, at_phone = desk.new_page(), phone.new_page()
    for page in (at_desk, at_phone):
        page.goto(url)
    desk_ballot, phone_ballot = wait_for_pair(at_desk), wait_for_pair(at_phone)
    num = Counter[str]()
    while desk_ballot or phone_ballot:  # turn about, so that both have a pair open all the time
        if desk_ballot:
            desk_ballot, num["desk"] = vote_by_keys(at_desk, desk_ballot), num["desk"] + 1
        if phone_ballot:
            phone_ballot, num["phone"] = vote_by_touch(at_phone, phone_ballot), num["phone"] + 1
        if num["desk"] == 15 and desk_ballot:
            kept = desk.storage_state(path=tmp_path / "kept.json")  # what a browser keeps on disk
            at_desk.keyboard.press("ArrowLeft")  # an answer that was not sent
            desk.close()
            desk = browsers[0].new_context(storage_state=kept, **DESKTOP)
            at_desk = desk.new_page()
            at_desk.goto(url)
            assert wait_for_pair(at_desk) == desk_ballot  # the pair that was open
    assert at_desk.locator("#done").is_visible()
    assert at_phone.title() == at_desk.title() == "Bars"  # no prompt was run as a script
    votes = VoteStore(*made).votes()
    real = Counter(vote.pair_id for vote in votes if not vote.is_check)
    assert len(real) == NUM_PAIRS
    assert set(real.values()) == {2}
    assert len(votes) == num["desk"] + num["phone"]
    assert len({(vote.pair_id, vote.rater) for vote in votes}) == len(votes)
    assert len({vote.rater for vote in votes}) == 2


def test_both_videos_play_on_one_clock(tmp_path: Path, browsers: tuple[object, object]) -> None:
    study = make_study(tmp_path, num_items=1, options=StudyOptions("Bars", min_watch_s=0.5))
    with serving(tmp_path / "study", study) as url:
        context = browsers[0].new_context(**DESKTOP)
        page = context.new_page()
        page.goto(url)
        wait_for_pair(page)
        page.keyboard.press("a")
        page.keyboard.press("a")
        assert page.locator("#send").is_disabled()  # not yet watched
        page.wait_for_selector("#send:not(:disabled)")
        page.wait_for_function("left.currentTime > 0 && right.currentTime > 0")
        page.keyboard.press(" ")
        times = page.evaluate("[left.currentTime, right.currentTime, left.paused, right.paused]")
        assert abs(times[0] - times[1]) <= 2 / 8
        assert times[2:] == [True, True]
        context.close()


def test_a_link_from_elsewhere_leads_a_rater_back_to_the_open_pair(
    tmp_path: Path, browsers: tuple[object, object]
) -> None:
    study = make_study(tmp_path, num_items=3, options=StudyOptions("Bars"))
    tokens = read_or_make_tokens(tmp_path / "study", renew=False)
    with serving(tmp_path / "study", study, tokens) as url:
        context = browsers[0].new_context(**DESKTOP)
        page, ballots = context.new_page(), []
        for _ in range(2):  # as from somebody's mail: another site leads here
            page.goto(f"data:text/html,<a href='{url}/?token={tokens.rater}'>vote</a>")
            page.click("a")
            page.wait_for_url(f"{url}/")  # without the token
            ballots.append(wait_for_pair(page))
        assert ballots[0] == ballots[1] != ""
        context.close()


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_results_fit_the_screen_without_complaint(
    made: tuple[Path, Study], url: str, browsers: tuple[object, object], look: dict[str, object]
) -> None:
    store = VoteStore(*made)
    rater = store.join()
    while (ballot := store.next_ballot(rater)) is not None:
        side = "left" if ballot.first_is_left else "right"
        store.give(rater, ballot.ballot, Given(side, side, 900, 0))
    context = browsers[0].new_context(**look)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}/results")
    assert complaints == []
    assert page.locator("svg.plot").count() == 3
    widths = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widths[0] <= widths[1]
    context.close()
