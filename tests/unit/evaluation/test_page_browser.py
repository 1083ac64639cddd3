"""The page in a real browser: it runs without errors, plays, and asks nothing of the network."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from svd.runtime.workspace import Workspace

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH"),
]


@dataclass
class Visit:
    """An open page and what it complained of or asked for."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


def visit(browser: object, workspace: Workspace, **context: object) -> Visit:
    page = browser.new_context(**context).new_page()
    seen = Visit(page)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            seen.complaints.append(message.text) if message.type in {"error", "warning"} else None
        ),
    )
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(workspace.report.as_uri())
    page.wait_for_load_state("load")
    return seen


DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_errors_no_requests_and_no_sideways_scrolling(
    browser: object, full_page: Workspace, look: dict[str, object]
) -> None:
    seen = visit(browser, full_page, **look)
    seen.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    seen.page.wait_for_timeout(300)
    assert seen.complaints == []
    outside = [url for url in seen.requests if not url.startswith(("file:", "data:"))]
    assert outside == []
    widths = seen.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widths[0] <= widths[1]


def test_samples_and_truths_play_in_step(browser: object, full_page: Workspace) -> None:
    page = visit(browser, full_page, **DESKTOP).page
    page.locator(".triple").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('.triple')].slice(0, 1).every((triple) =>"
        " [...triple.querySelectorAll('video')].every((video) =>"
        " !video.paused && video.currentTime > 0 && video.videoWidth > 0))"
    )
    page.click("#play")  # pause, then look
    times = page.evaluate(
        "[...document.querySelectorAll('.triple')][0]"
        ".querySelectorAll('video').values().map((video) => video.currentTime).toArray()"
    )
    assert abs(times[0] - times[1]) <= 2 / 8
    assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.paused)")


def test_every_video_and_picture_can_be_decoded(browser: object, full_page: Workspace) -> None:
    page = visit(browser, full_page, **DESKTOP).page
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every((video) => video.readyState >= 2)"
    )
    broken = page.evaluate(
        "[...document.images].filter((image) => image.complete && !image.naturalWidth).length"
    )
    assert broken == 0


def test_reduced_motion_starts_paused(browser: object, full_page: Workspace) -> None:
    page = visit(browser, full_page, reduced_motion="reduce", **DESKTOP).page
    page.wait_for_timeout(300)
    assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.paused)")
    assert page.inner_text("#play") == "Play"


def test_theme_button_turns_the_page_dark(browser: object, full_page: Workspace) -> None:
    page = visit(browser, full_page, color_scheme="light", **DESKTOP).page
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.click("#theme")
    assert page.evaluate(colour) != light


def test_one_reason_of_rejection_at_a_time(browser: object, full_page: Workspace) -> None:
    page = visit(browser, full_page, **DESKTOP).page
    every = page.locator("#rejected .thumb:visible").count()
    page.click(".chip[data-rule='text.area']")
    some = page.locator("#rejected .thumb:visible").count()
    assert 0 < some < every
    page.click(".chip[data-rule='']")
    assert page.locator("#rejected .thumb:visible").count() == every


def test_order_by_likeness_sorts_the_samples(browser: object, full_page: Workspace) -> None:
    page = visit(browser, full_page, **DESKTOP).page
    page.select_option("#order", "best")
    values = page.evaluate(
        "[...document.querySelectorAll('.triple')].map((triple) => Number(triple.dataset.psnr))"
    )
    assert values == sorted(values, reverse=True)


def test_stages_open_with_the_keyboard(browser: object, full_page: Workspace) -> None:
    page = visit(browser, full_page, **DESKTOP).page
    page.locator(".stage summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".stage[open]").count() == 1
