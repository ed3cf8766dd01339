"""The page in headless Chromium: generate, attribute, open a record, stop a run, forget; and that
no request leaves the machine.

Screenshots of each stage go to runs/screenshots/, which git ignores: look at them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect

from tests.app.conftest import Site
from tests.tiny import tiny_images

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
LOCAL = {"127.0.0.1", "localhost", None}  # None: data: and blob: addresses
SECONDS = 1000  # Playwright counts in milliseconds


class Visits:
    """Opens pages in fresh browser profiles, and remembers what they asked for and what broke."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url = browser, url
        self.asked: list[str] = []
        self.errors: list[str] = []

    def __call__(self, query: str = "", width: int = 1280) -> Any:
        context = self.browser.new_context(viewport={"width": width, "height": 900})
        context.on("request", lambda request: self.asked.append(request.url))
        page = context.new_page()
        page.set_default_timeout(60 * SECONDS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(self.url + query)
        page.wait_for_selector("#generate-run")
        return page


@pytest.fixture(scope="module")
def visit(site: Site, chromium: Any) -> Visits:
    return Visits(chromium, site.url)


@pytest.fixture(scope="module")
def shared_page(visit: Visits) -> Any:
    """One visitor for most tests: loading gradio's page is the slow part."""
    return visit()


@pytest.fixture
def page(shared_page: Any, site: Site) -> Iterator[Any]:
    """The shared page with a generated picture; the engine at its own speed again afterwards."""
    shared_page.click("role=tab[name=Generate]")
    if shared_page.locator("#picture img").count() == 0:
        generate(shared_page)
    yield shared_page
    site.engine.pause = 0.0


def shot(page: Any, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def generate(page: Any, prompt: str = "ak by 0", seed: int = 3) -> None:
    page.fill("#prompt textarea", prompt)
    page.fill("#seed input", str(seed))
    page.click("#generate-run")
    page.wait_for_selector("#generate-status .w-done")


def attribute(page: Any) -> None:
    page.click("#attribute-run")
    page.wait_for_selector("#attribute-status .w-done")


def fits(page: Any) -> bool:
    """No sideways scrolling."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def inside(page: Any) -> bool:
    """Nothing of the last step is cut off at the right; strips scroll by themselves."""
    return page.evaluate(
        """() => [...document.querySelectorAll('#step-further :is(p, .w-card, .w-scroll)')]
          .filter(e => e.offsetParent && !e.closest('.w-run'))
          .every(e => e.getBoundingClientRect().right <= window.innerWidth + 1)"""
    )


def test_from_prompt_to_forgetting(shared_page: Any) -> None:
    page = shared_page
    shot(page, "1-fresh")
    expect(page.locator("#attribute-run")).to_be_disabled()
    generate(page)
    expect(page.locator("#picture img")).to_have_attribute("alt", "Your picture: ak by 0")
    attribute(page)
    labels = page.locator("#gallery .w-label")
    expect(labels).to_have_count(24)
    expect(labels.first).to_have_text(re.compile(r"^#1 · −?[\d.]+"))
    expect(page.locator("#gallery img:not([alt=''])")).to_have_count(24)
    page.click("#table-box button")
    expect(page.locator("#table tbody tr")).to_have_count(24)
    shot(page, "2-answer")

    page.click("#gallery li:nth-child(5) button")
    page.wait_for_selector("#record .w-browse >> text=#5 of 24")
    facts = page.inner_text("#record dl")
    assert "Artist" in facts and "Caption" in facts and "Licence" in facts
    expect(page.locator("#record .w-heat")).to_have_count(1)
    expect(page.locator("#gallery li:nth-child(5) button")).to_have_attribute(
        "aria-current", "true"
    )
    shot(page, "3-record")

    page.click("#forget-run")
    page.wait_for_selector("#forget-status .w-done")
    expect(page.locator(".w-strengths figure")).to_have_count(5)
    expect(page.locator(".w-others figure").first).to_be_visible()
    shot(page, "4-forgetting")


def test_an_example_answers_at_once_and_another_index_s_is_refused(page: Any, site: Site) -> None:
    site.engine.pause = 30.0  # any work on the model would outlast the test
    expect(page.locator("#examples button")).to_have_count(1)
    expect(page.locator(".w-examples-lead")).to_contain_text(
        "foreign was made with index 000000000000"
    )
    page.click("#examples button")
    page.wait_for_selector("#scope >> text=bn by 3")
    expect(page.locator("#prompt textarea")).to_have_value("bn by 3")
    expect(page.locator("#gallery .w-card")).to_have_count(24)
    page.wait_for_selector("#record .w-heat")
    expect(page.locator("#forget-run")).to_be_enabled()
    page.wait_for_function(
        "document.getElementById('step-answer').getBoundingClientRect().top < 300"
    )


def test_the_timestep_slider_ranks_anew_without_the_model(page: Any, site: Site) -> None:
    attribute(page)
    before = page.locator("#gallery .w-card").evaluate_all("cards => cards.map(c => c.dataset.id)")
    site.engine.pause = 30.0  # any work on the model would outlast the test
    page.locator("#timestep input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_function("!document.querySelector('#all-timesteps input').checked")
    page.wait_for_function(
        "before => [...document.querySelectorAll('#gallery .w-card')]"
        ".map(c => c.dataset.id).join() !== before",
        arg=",".join(before),
    )
    page.check("#all-timesteps input")
    page.wait_for_function(
        "before => [...document.querySelectorAll('#gallery .w-card')]"
        ".map(c => c.dataset.id).join() === before",
        arg=",".join(before),
    )


def test_a_number_beyond_a_slider_goes_to_its_nearest(page: Any) -> None:
    broken: list[str] = []
    page.on("response", lambda got: broken.append(got.url) if got.status >= 500 else None)
    attribute(page)
    when = page.locator("#timestep input[type=number]")
    when.press_sequentially("000")
    expect(page.locator("#scope")).to_contain_text(f"timestep t = {when.get_attribute('max')}.")
    when.press("Enter")
    expect(when).to_have_value(when.get_attribute("max"))
    when.fill("")
    when.press("Tab")
    expect(when).to_have_value(when.get_attribute("min"))
    many = page.locator("#top-k input[type=number]")
    for typed, taken in (("5000", "36"), ("3.7", "4")):
        many.fill(typed)
        many.press("Control+Enter")
        expect(page.locator("#gallery .w-card")).to_have_count(int(taken))
        expect(many).to_have_value(taken)
        page.wait_for_selector("#attribute-status .w-done")
    many.fill("24")
    assert broken == []


def escape_until_stopped(page: Any, tries: int = 15) -> None:
    """Presses Escape as a visitor would, again if the page was still drawing."""
    for _ in range(tries):
        page.keyboard.press("Escape")
        try:
            page.wait_for_selector("#attribute-status .w-stopped", timeout=4 * SECONDS)
            return
        except PlaywrightTimeout:
            continue
    raise AssertionError("the run was not stopped")


def test_escape_stops_a_run_and_the_page_goes_on(page: Any, site: Site) -> None:
    site.engine.pause = 1.0
    page.click("#attribute-run")
    page.wait_for_selector("#attribute-status .w-working")
    page.wait_for_selector("#attribute-stop")
    escape_until_stopped(page)
    expect(page.locator("#attribute-stop")).to_be_hidden()
    shot(page, "5-stopped")
    site.engine.pause = 0.0
    attribute(page)


def test_a_waiting_visitor_is_told_and_can_cancel(page: Any, visit: Visits, site: Site) -> None:
    first, second = page, visit()
    site.engine.pause = 0.3
    first.fill("#prompt textarea", "bk by 1")
    first.click("#generate-run")
    first.wait_for_selector("#generate-status .w-working >> text=/of/")
    second.fill("#prompt textarea", "ck by 2")
    second.click("#generate-run")
    second.wait_for_selector("#generate-status >> text=Waiting for the model")
    second.click("#generate-stop")
    second.wait_for_selector("#generate-status >> text=Cancelled before it began")
    expect(second.locator("#generate-run")).to_be_enabled()
    site.engine.pause = 0.0
    first.wait_for_selector("#generate-status .w-done")
    generate(second)
    second.context.close()


def test_mistakes_are_told_in_words(page: Any) -> None:
    page.fill("#prompt textarea", "  ")
    page.click("#generate-run")
    page.wait_for_selector("#generate-status .w-refused")
    expect(page.locator("#generate-status")).to_contain_text("The prompt is empty")
    page.fill("#prompt textarea", "ak by 0")
    page.fill("#seed input", "1.5")
    page.click("#generate-run")
    expect(page.locator("#generate-status")).to_contain_text("The seed has to be a whole number")
    expect(page.locator("#generate-status")).to_contain_text("not 1.5.")
    page.fill("#seed input", "3")
    page.click("role=tab[name=Upload]")
    page.click("#use-run")
    page.wait_for_selector("#use-status .w-refused")
    expect(page.locator("#use-status")).to_contain_text("Choose a picture first")
    shot(page, "6-refused")


def test_an_upload_gets_captions_and_a_warning(page: Any, tmp_path: Path) -> None:
    picture, noise = tmp_path / "mine.png", tmp_path / "broken.png"
    tiny_images(1, seed=9)[0].resize((64, 48)).save(picture)
    noise.write_bytes(b"this is no picture")
    page.click("role=tab[name=Upload]")
    page.set_input_files("#upload input[type=file]", picture)
    page.click("#nearest button >> nth=0")
    page.wait_for_function("document.querySelector('#upload-prompt textarea').value !== ''")
    page.click("#use-run")
    page.wait_for_selector("#picture-caption >> text=No ground truth")
    shot(page, "7-upload")
    attribute(page)
    expect(page.locator("#gallery .w-card")).to_have_count(24)
    page.click("#upload button[aria-label='Remove Image']")
    page.set_input_files("#upload input[type=file]", noise)
    page.wait_for_timeout(0.5 * SECONDS)
    page.click("#use-run")
    page.wait_for_selector("#use-status .w-refused")
    expect(page.locator("#use-status")).to_contain_text("Not an image")


def test_a_link_repeats_the_question(page: Any, visit: Visits, tmp_path: Path) -> None:
    generate(page)
    attribute(page)
    page.wait_for_function("document.querySelector('#link textarea, #link input').value !== ''")
    query = "?" + urlsplit(page.input_value("#link textarea, #link input")).query
    assert query == "?prompt=ak+by+0&seed=3&method=abu&k=24"
    with page.expect_download() as download:
        page.click("#zip")
    download.value.save_as(tmp_path / "answer.zip")
    assert (tmp_path / "answer.zip").read_bytes()[:2] == b"PK"

    followed = visit(query)
    followed.wait_for_selector("#attribute-status .w-done")
    expect(followed.locator("#prompt textarea")).to_have_value("ak by 0")
    scores = page.locator("#gallery .w-label").all_inner_texts()
    expect(followed.locator("#gallery .w-label")).to_have_text(scores)
    followed.goto(visit.url + "?prompt=x&seed=-1")
    followed.wait_for_selector(".toast-body")
    expect(followed.locator(".toast-body")).to_contain_text("cannot be followed")
    followed.goto(visit.url + "?prompt=x&seed=1&method=trak")
    expect(followed.locator(".toast-body")).to_contain_text("precompute trak --out index")
    followed.context.close()


def test_ctrl_enter_runs_the_step_one_is_in(page: Any) -> None:
    page.fill("#prompt textarea", "dk by 3")
    page.locator("#prompt textarea").press("Control+Enter")
    page.wait_for_selector("#generate-status .w-working")
    page.wait_for_selector("#generate-status .w-done")
    page.locator("#method input").press("Control+Enter")
    page.wait_for_selector("#attribute-status .w-working")
    page.wait_for_selector("#attribute-status .w-done")


def test_methods_are_compared_and_one_record_is_marked_in_every_strip(
    page: Any, site: Site
) -> None:
    site.engine.pause = 30.0  # any work on the model would outlast the test
    page.click("#examples button")
    page.click("role=tab[name=Compare]")
    page.wait_for_function("document.querySelectorAll('#strips .w-run').length === 4")
    labels = ["loss change", "similarity", "similarity", "control"]
    expect(page.locator("#strips .w-badge")).to_have_text(labels)
    card = page.locator("#strips .w-strip:nth-child(2) li:nth-child(3) button")
    card.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#ranks tbody tr:nth-child(2) >> text=#3 of 36")
    marked = page.locator("#strips [aria-current]")
    page.wait_for_function("document.querySelectorAll('#strips [aria-current]').length > 1")
    expect(page.locator("#strips .w-mark:visible")).to_have_count(marked.count())
    assert len(set(marked.evaluate_all("cards => cards.map(c => c.dataset.id)"))) == 1
    expect(page.locator("#agreement tbody td")).to_have_count(32)
    shot(page, "11-compare")
    page.focus("#compare-k input[type=range]")
    for key, many in (("Home", 1), ("ArrowRight", 2), ("End", 36)):
        page.keyboard.press(key)
        expect(page.locator("#strips .w-strip").first.locator(".w-card")).to_have_count(many)
    page.click("#compare-k .reset-button")
    expect(page.locator("#strips .w-strip").first.locator(".w-card")).to_have_count(24)

    site.engine.pause = 0.0
    generate(page, "ek by 4")
    expect(page.locator("#strips .w-run")).to_have_count(0)
    page.click("#compare-run")
    page.wait_for_selector("#compare-status .w-done")
    expect(page.locator("#strips .w-run")).to_have_count(4)
    page.click("#compare-similarity label >> text=CLIP text")
    page.wait_for_function("document.querySelector('#compare-status .w-done') !== null")
    page.click("#compare-run")
    page.wait_for_function("document.querySelectorAll('#strips .w-run').length === 5")
    page.click("role=tab[name=Forget]")


def test_a_guess_by_keyboard_and_every_method_explained(page: Any) -> None:
    page.click("role=tab[name=Guess]")
    page.locator("#guess li:nth-child(4) button").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#guess .w-verdict")
    expect(page.locator("#guess .w-verdict tbody tr")).to_have_count(4)
    page.wait_for_function(
        "document.getElementById('announcer').textContent.includes('of 1 right')"
    )
    page.wait_for_function("document.activeElement.textContent === 'Next picture'")
    shot(page, "12-guess")
    page.keyboard.press("Enter")
    page.wait_for_selector("#guess >> text=Round 2")

    page.click("role=tab[name=Learn]")
    methods = page.locator("[id^=learn-]")
    methods.first.wait_for()
    for i in range(methods.count()):
        methods.nth(i).locator("button").first.click()
    page.wait_for_selector("#learn-abu .katex")
    expect(page.locator(".katex-error")).to_have_count(0)
    shot(page, "13-learn")
    page.click("role=tab[name=Forget]")


def test_escape_before_stop_is_drawn_is_heard(page: Any, site: Site) -> None:
    """A busy machine draws Stop late: here the key comes in the same instant as the click."""
    site.engine.pause = 1.0
    page.evaluate(
        """() => {
          document.getElementById('attribute-run').click();
          document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}));
        }"""
    )
    page.wait_for_selector("#attribute-status .w-stopped")
    expect(page.locator("#attribute-stop")).to_be_hidden()


def test_a_phone_needs_no_sideways_scrolling_and_has_a_dark_mode(visit: Visits) -> None:
    page = visit(width=375)
    assert fits(page)
    generate(page)
    attribute(page)
    page.click("#forget-run")
    page.wait_for_selector("#forget-status .w-done")
    assert fits(page)
    shot(page, "8-phone-light")
    for tab in ("Compare", "Learn", "Guess"):
        page.click(f"role=tab[name={tab}]")
        page.wait_for_timeout(0.3 * SECONDS)
        assert fits(page) and inside(page), tab
    page.click("#guess li:nth-child(2) button")
    page.wait_for_selector("#guess .w-verdict")
    assert inside(page)

    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#light-switch")
    expect(page.locator("#light-switch")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(ground) != light
    assert fits(page)
    shot(page, "9-phone-dark")
    page.set_viewport_size({"width": 1280, "height": 900})
    shot(page, "10-dark")
    page.reload()
    page.wait_for_selector("#generate-run")
    page.wait_for_function("document.body.classList.contains('dark')")
    page.context.close()


def test_no_request_left_the_machine_and_nothing_broke(visit: Visits) -> None:
    """Runs last: looks back at every page that the tests above opened."""
    assert len(visit.asked) > 50
    assert {url for url in visit.asked if urlsplit(url).hostname not in LOCAL} == set()
    assert visit.errors == []
