"""Prove it in headless Chromium, on a world that retrains in a second: trainings, two visitors.

Screenshots go to runs/screenshots/, which git ignores: look at them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from attribution import layout
from attribution.engine import Engine
from tests.app.conftest import served
from tests.precompute.proof_world import proof_index

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
SECONDS = 1000  # Playwright counts in milliseconds
SLOW_STEPS = 800  # of a training


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return proof_index(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def address(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    world = Path(shutil.copytree(made, tmp_path_factory.mktemp("assets") / "proof"))
    with served(Engine(world, "cpu")) as url:
        yield url


@pytest.fixture
def slow(made: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a world whose trainings take longer than a page takes to open."""
    world = Path(shutil.copytree(made, tmp_path / "proof"))
    file = world / layout.UNET_TRAINING
    noted = json.loads(file.read_text())
    noted["config"]["steps"] = SLOW_STEPS
    file.write_text(json.dumps(noted))
    with served(Engine(world, "cpu")) as url:
        yield url


def visit(browser: Any, address: str, **options: Any) -> Any:
    """A visitor who has opened the tab."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(120 * SECONDS)
    page.broken = []
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#generate-run")
    page.click("role=tab[name=Prove]")
    page.fill("#prove-k input[type=number]", "2")
    page.press("#prove-k input[type=number]", "Tab")
    return page


@pytest.fixture
def page(address: str, chromium: Any) -> Iterator[Any]:
    page = visit(chromium, address, viewport={"width": 1280, "height": 1000})
    yield page
    assert page.broken == []
    page.context.close()


def status(page: Any) -> Any:
    return expect(page.locator("#prove-status"))


def shown(page: Any) -> str:
    """The proof, without the name that Gradio gives its frame on every load."""
    return re.sub(r"\bhtml-\w+", "", page.inner_html("#proof"))


def marked(page: Any) -> bool:
    """Whether the tab shows that its step is at work."""
    tab = page.locator("#further [role=tablist] [data-tab-id=prove]")
    return tab.evaluate("tab => getComputedStyle(tab, '::before').content") == '""'


def test_a_proof_is_made_and_opens_again(page: Any) -> None:
    page.fill("#prove-prompt textarea", "bn by 3")
    assert not marked(page)
    page.click("#prove-run")
    expect(page.locator("#proof-begun .w-frame")).to_have_count(2)  # before it is trained
    assert marked(page)
    expect(page.locator("#proof-begun .w-removed img")).to_have_count(4)
    status(page).to_contain_text("Done: trained without 2", timeout=120 * SECONDS)
    expect(page.locator("#proof .w-sides img")).to_have_count(3)
    assert not marked(page)
    expect(page.locator("#proof .w-verdict")).to_contain_text("at this picture")
    page.screenshot(path=SHOTS / "prove-done.png", full_page=True)
    first = shown(page)
    # another one, of another method; then the first again
    page.click("#prove-method input")
    page.click("text=Pixels")
    page.click("#prove-run")
    expect(page.locator("#proof h4").first).to_contain_text("Pixels", timeout=120 * SECONDS)
    status(page).to_contain_text("Done", timeout=120 * SECONDS)
    expect(page.locator("#proofs button")).to_have_count(2)
    page.click("#proofs button >> nth=0")
    expect(page.locator("#proof h4").first).not_to_contain_text("Pixels")
    assert shown(page) == first
    # they are there after a reload, and in no other browser
    page.reload()
    page.wait_for_selector("#generate-run")
    page.click("role=tab[name=Prove]")
    expect(page.locator("#proofs button")).to_have_count(2)
    page.click("#proofs button >> nth=0")
    expect(page.locator("#proof h4").first).to_be_visible()
    assert shown(page) == first
    stranger = visit(page.context.browser, page.url)
    expect(stranger.locator("#prove-run")).to_be_visible()
    expect(stranger.locator("#proofs button")).to_have_count(0)
    stranger.context.close()


def test_a_reload_in_the_midst_of_a_training_loses_nothing(slow: str, chromium: Any) -> None:
    page = visit(chromium, slow)
    page.fill("#prove-prompt textarea", "bn by 4")
    page.click("#prove-run")
    expect(page.locator("#proof-curve polyline").first).to_be_visible()
    page.reload()
    page.wait_for_selector("#generate-run")
    page.click("role=tab[name=Prove]")
    status(page).to_contain_text("Train without the 2 that AbU+ found: “bn by 4”")
    expect(page.locator("#proof-begun .w-frame")).to_have_count(2)
    expect(page.locator("#prove-run")).to_be_disabled()
    assert marked(page) and page.input_value("#prove-prompt textarea") == "bn by 4"
    status(page).to_contain_text("Done: trained without 2", timeout=120 * SECONDS)
    expect(page.locator("#proof .w-verdict")).to_contain_text("at this picture")
    expect(page.locator("#proofs button")).to_contain_text("bn by 4")
    # and Stop, pressed after a reload, ends it
    page.click("#prove-run")
    expect(page.locator("#proof-curve polyline").first).to_be_visible()
    page.reload()
    page.click("role=tab[name=Prove]")
    page.click("#prove-stop")
    status(page).to_contain_text("Stopped")
    expect(page.locator("#prove-run")).to_be_enabled()
    assert page.broken == []
    page.context.close()


def test_every_tab_fits_a_phone(address: str, chromium: Any) -> None:
    page = visit(chromium, address, viewport={"width": 360, "height": 800})
    tabs = page.locator("#further [role=tablist] [role=tab]")
    expect(tabs).to_have_text(["Forget", "Compare", "Guess", "Prove", "Learn"])
    page.context.close()


def test_what_cannot_be_read_is_told_and_loses_nothing(page: Any) -> None:
    """A seed out of range: a line, and the next press works; in the first step too."""
    page.fill("#prove-prompt textarea", "bn by 3")
    page.fill("#prove-seed input", "-1")
    page.click("#prove-run")
    status(page).to_contain_text("The seed has to be a whole number from 0")
    expect(page.locator("#prove-run")).to_be_enabled()
    page.fill("#prove-seed input", "7")
    page.click("#prove-run")
    status(page).to_contain_text("Done", timeout=120 * SECONDS)
    done = shown(page)
    page.fill("#prove-prompt textarea", "")
    page.click("#prove-run")
    status(page).to_contain_text("The prompt is empty")
    assert shown(page) == done
    page.fill("#prompt textarea", "bn by 3")
    page.fill("#seed input", "99999999999")
    page.click("#generate-run")
    expect(page.locator("#generate-status")).to_contain_text("The seed has to be")
    expect(page.locator("#generate-run")).to_be_enabled()


def test_who_waits_can_think_again(address: str, chromium: Any, page: Any) -> None:
    """Prove, Stop and Prove behind another visitor's training: the last click counts."""
    other = visit(chromium, address)
    for visitor in (page, other):
        visitor.fill("#prove-prompt textarea", "bn by 3")
    page.click("#prove-run")
    expect(page.locator("#proof-begun .w-frame")).to_have_count(2)
    other.click("#prove-run")
    other.click("#prove-stop")
    status(other).to_contain_text("Stopped")
    other.click("#prove-run")
    for visitor in (page, other):
        status(visitor).to_contain_text("Done", timeout=120 * SECONDS)
    assert other.broken == []
    other.context.close()
