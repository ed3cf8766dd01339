"""Detect and Words in headless Chromium, by mouse, by keyboard and on a phone.

Screenshots go to runs/screenshots/, which git ignores: look at them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.app.conftest import Site
from tests.app.test_browser_region import attribute, ran, shot, tab, upload, visit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def desktop(site: Site, chromium: Any) -> Iterator[Any]:
    page = visit(chromium, site, viewport={"width": 1280, "height": 900})
    yield page
    assert page.broken == []
    page.context.close()


def opened(page: Any, name: str, tool: str) -> None:
    page.click(f"#region-tabs >> role=tab[name='{name}']")
    page.wait_for_selector(f'#pad .w-marks[data-tool="{tool}"]', state="attached")


def generated(page: Any, prompt: str) -> None:
    page.click("role=tab[name=Generate]")
    page.fill("#prompt textarea", prompt)
    ran(page, "generate")


def detect(page: Any, text: str) -> None:
    page.fill("#detect-text textarea, #detect-text input", text)
    ran(page, "detect")


def test_what_was_found_is_ticked_and_attributed(desktop: Any, tmp_path: Path) -> None:
    page = desktop
    upload(page, tmp_path / "wide.png", (96, 64))
    opened(page, "Detect", "pick")
    expect(page.locator("#detect-run")).to_be_enabled()
    expect(page.locator("#detect-text textarea, #detect-text input")).to_have_value("ak.")
    expect(page.locator("#region-line")).to_contain_text("Nothing ticked")
    detect(page, "dog. house. stop sign")
    page.wait_for_selector("#pad .w-found")
    many = page.locator("#pad .w-found").count()
    assert many >= 2
    expect(page.locator("#found li")).to_have_count(many)
    expect(page.locator("#pad .w-found .w-current")).to_have_count(1)  # the best
    expect(page.locator("#region-line")).to_contain_text("Ticked, ")

    page.click("#found li:nth-child(2) button")
    page.wait_for_function("document.querySelectorAll('#pad .w-current').length === 2")
    page.focus("#found li:nth-child(1) button")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#pad .w-current').length === 1")
    top = page.locator("#pad .w-found").last  # drawn last, so nothing lies over it
    was = top.locator("rect").get_attribute("class")
    top.locator("rect").click(force=True)
    page.wait_for_function(
        "was => [...document.querySelectorAll('#pad .w-found rect')].at(-1)"
        ".getAttribute('class') !== was",
        arg=was,
    )
    shot(page, "detected")
    if not page.locator("#pad .w-current").count():
        page.click("#found li:nth-child(1) button")
        page.wait_for_selector("#pad .w-current")
    attribute(page)
    expect(page.locator("#scope img")).to_have_attribute("alt", "The part of your picture")


def test_nothing_found_and_bad_words_are_said(desktop: Any) -> None:
    page = desktop
    for emptied in (" . ", ""):
        page.fill("#detect-text textarea, #detect-text input", emptied)
        page.click("#detect-run")
        page.wait_for_selector("#detect-status .w-refused")
        expect(page.locator("#detect-status")).to_contain_text("What to detect is empty")
    page.fill("#detect-threshold input[type=number]", "1")
    page.press("#detect-threshold input[type=number]", "Tab")
    detect(page, "dog")
    page.wait_for_selector("#found .w-empty")
    expect(page.locator("#found")).to_contain_text("Nothing found")
    expect(page.locator("#region-line")).to_contain_text("whole picture counts")


def test_a_word_of_the_prompt_selects_its_region(desktop: Any, tmp_path: Path) -> None:
    page = desktop
    generated(page, "ak by 0")
    opened(page, "Words", "look")
    expect(page.locator("#region-line")).to_contain_text("No word chosen")
    page.click('#words [data-id="ak"]')
    page.wait_for_selector("#pad image.w-heat")
    page.wait_for_selector('#words [data-id="ak"][aria-pressed="true"]')
    expect(page.locator("#region-line")).to_contain_text("looked for “ak”")
    shot(page, "word")
    before = page.inner_text("#region-line")
    page.focus("#words-keep input[type=range]")
    page.keyboard.press("End")
    expect(page.locator("#region-line")).not_to_have_text(before)
    page.click("#words-keep .reset-button")
    expect(page.locator("#region-line")).to_have_text(before)
    page.click('#words [data-id="by"]')  # at once: the maps are at hand
    page.wait_for_selector('#words [data-id="by"][aria-pressed="true"]')
    attribute(page)
    page.click("#region-tabs >> role=tab[name='Whole']")
    attribute(page)
    page.wait_for_selector("#rows .w-row:nth-child(2)")
    expect(page.locator("#rows figcaption b")).to_have_text(["by", "whole picture"])
    # a card of a row shows that row's figures, whatever was answered last
    card = page.locator("#rows .w-row:nth-child(1) .w-card").first
    score = card.locator(".w-label").inner_text().split()[-1]
    card.click()
    expect(page.locator("#record .w-browse")).to_have_text(re.compile(r"#1 for by, "))
    expect(page.locator("#record")).to_contain_text(score)


def test_a_part_is_asked_about_in_words_of_its_own(desktop: Any, tmp_path: Path) -> None:
    page = desktop
    upload(page, tmp_path / "named.png", (64, 64))
    expect(page.locator("#own-words")).to_be_hidden()  # the whole picture goes by its prompt
    opened(page, "Words", "look")
    page.click('#words [data-id="ak"]')
    page.wait_for_selector("#pad image.w-heat")
    words = page.locator("#own-text textarea, #own-text input")
    expect(words).to_have_attribute("placeholder", "ak")
    expect(page.locator("#region-line")).to_contain_text("as “ak”")
    attribute(page)
    page.uncheck("#own input")
    expect(page.locator("#region-line")).to_contain_text("with the whole prompt")
    expect(words).to_be_disabled()
    attribute(page)
    page.check("#own input")
    words.fill("bo by 1")
    expect(page.locator("#region-line")).to_contain_text("as “bo by 1”")
    attribute(page)
    expect(page.locator("#scope b")).to_contain_text("its part as “bo by 1”")
    page.wait_for_selector("#rows .w-row:nth-child(3)")
    names = ["ak, in its own words", "ak", "ak, as “bo by 1”"]
    expect(page.locator("#rows figcaption b")).to_have_text(names)
    shot(page, "own-words")
    upload(page, tmp_path / "another.png", (80, 80))  # another size: its arrival can be seen
    opened(page, "Box", "box")
    expect(words).to_have_value("")


def test_what_is_chosen_while_the_model_looks_stays(desktop: Any, tmp_path: Path) -> None:
    page = desktop
    generated(page, "bn by 1")
    opened(page, "Words", "look")
    page.wait_for_selector('#words [data-id="bn"]')
    for word in ("bn", "by"):  # the second before the model has looked
        page.click(f'#words [data-id="{word}"]')
    page.wait_for_selector("#words-status .w-done", state="attached")
    page.wait_for_selector('#words [data-id="by"][aria-pressed="true"]')
    expect(page.locator("#region-line")).to_contain_text("looked for “by”")
    # no ticket is left over: another picture, and the next look runs
    upload(page, tmp_path / "next.png", (64, 64))
    opened(page, "Words", "look")
    page.click('#words [data-id="ak"]')
    page.wait_for_selector("#words-status .w-done", state="attached")
    expect(page.locator("#region-line")).to_contain_text("looked for “ak”")


def test_on_a_phone(site: Site, chromium: Any, tmp_path: Path) -> None:
    phone = {"width": 375, "height": 740}
    page = visit(chromium, site, viewport=phone, has_touch=True, is_mobile=True)
    upload(page, tmp_path / "tall.png", (48, 96))
    opened(page, "Detect", "pick")
    detect(page, "dog. house")
    page.wait_for_selector("#pad .w-found")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shot(page, "detected-phone")
    tab(page, "Box")
    assert page.broken == []
    page.context.close()
