"""Choosing a part in headless Chromium: by mouse, by touch, by numbers and by brush, on generated,
portrait and landscape pictures; the rows that come of it.

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
from tests.tiny import tiny_images

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
SECONDS = 1000  # Playwright counts in milliseconds
CORNERS = ("left", "top", "right", "bottom")


def visit(browser: Any, site: Site, query: str = "", **options: Any) -> Any:
    """A page of its own; what breaks in it fails the test that looks at `broken`."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(60 * SECONDS)
    page.broken = []
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    page.goto(site.url + query)
    page.wait_for_selector("#generate-run")
    return page


@pytest.fixture(scope="module")
def desktop(site: Site, chromium: Any) -> Iterator[Any]:
    page = visit(chromium, site, viewport={"width": 1280, "height": 900})
    yield page
    assert page.broken == []
    page.context.close()


@pytest.fixture(scope="module")
def phone(site: Site, chromium: Any) -> Iterator[Any]:
    page = visit(
        chromium, site, viewport={"width": 375, "height": 740}, has_touch=True, is_mobile=True
    )
    yield page
    assert page.broken == []
    page.context.close()


def upload(page: Any, path: Path, size: tuple[int, int]) -> None:
    """A picture of `size`, taken as the page's."""
    tiny_images(1, seed=8)[0].resize(size).save(path)
    page.click("role=tab[name=Upload]")
    if page.locator("#upload img").count():
        page.click("#upload button[aria-label*=emove], #upload button[aria-label*=lear]")
    page.set_input_files("#upload input[type=file]", str(path))
    page.wait_for_selector("#upload img")
    page.fill("#upload-prompt textarea", "ak by 0")
    page.click("#use-run")
    page.wait_for_selector(f'#pad .w-marks[data-width="{size[0]}"]', state="attached")


def tab(page: Any, name: str) -> None:
    page.click(f"#region-tabs >> role=tab[name='{name}']")
    tool = {"Box": "box", "Brush": "brush"}.get(name, "")
    page.wait_for_selector(f'#pad .w-marks[data-tool="{tool}"]', state="attached")
    expect(page.locator("#pad .w-pad")).to_be_visible(visible=bool(tool))


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Shares of the picture's sides as a place on the screen."""
    page.locator("#pad").scroll_into_view_if_needed()
    frame, before = page.locator("#pad .w-marks").bounding_box(), None
    while frame != before:  # what stands above the picture may still be making room
        page.wait_for_timeout(50)
        frame, before = page.locator("#pad .w-marks").bounding_box(), frame
    return frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]


def drag(page: Any, *path: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *path[0]))
    page.mouse.down()
    for place in path[1:]:
        page.mouse.move(*at(page, *place), steps=4)
    page.mouse.up()


def boxes(page: Any, count: int) -> list[list[float]]:
    """x0, y0, x1, y1 of the boxes on the picture, once there are `count`."""
    page.wait_for_function(f"document.querySelectorAll('#pad .w-marks .w-box').length === {count}")
    found = []
    for shape in page.locator("#pad .w-marks .w-box").all():
        x, y, w, h = (float(shape.get_attribute(n)) for n in ("x", "y", "width", "height"))
        found.append([x, y, x + w, y + h])
    return found


def numbers_become(page: Any, box: list[float]) -> None:
    """Waits until the number fields say x0, y0, x1, y1 of `box`, to a tenth of a pixel."""
    page.wait_for_function(
        "([names, box]) => names.every((name, i) => {"
        " const said = document.querySelector(`#box-${name} input`).value;"
        " return said !== '' && Math.abs(said - box[i]) < 0.06; })",
        arg=[list(CORNERS), box],
    )


def shot(page: Any, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"region-{name}.png", full_page=True)


def ran(page: Any, step: str) -> None:
    """Presses a step's button and waits until this very run is done, however short it was: what its
    status said before is marked, and does not count."""
    mark = "id => document.querySelectorAll(`#${id}-status *`).forEach(e => e.dataset.before = 1)"
    page.evaluate(mark, step)
    page.click(f"#{step}-run")
    page.wait_for_selector(f"#{step}-status .w-done:not([data-before])")


def attribute(page: Any) -> None:
    ran(page, "attribute")


def test_by_mouse_numbers_and_keyboard_on_a_landscape(desktop: Any, tmp_path: Path) -> None:
    page, (width, height) = desktop, (120, 60)
    expect(page.locator("#pad")).to_contain_text("Make a picture first")
    upload(page, tmp_path / "wide.png", (width, height))
    expect(page.locator("#region-line")).to_contain_text("whole picture counts")
    tab(page, "Box")
    expect(page.locator("#box-remove")).to_be_disabled()
    expect(page.locator("#boxes-clear")).to_be_disabled()

    drag(page, (0.1, 0.2), (0.5, 0.8))
    (first,) = boxes(page, 1)
    assert first == pytest.approx([12, 12, 60, 48], abs=1.0)
    numbers_become(page, first)
    expect(page.locator("#region-line")).to_contain_text(
        "The box: 24 % of the picture counts, with the whole prompt."
    )

    for place in ((0.9, 0.9), (0.7, 0.4)):  # two clicks, from the lower right to the upper left
        page.mouse.click(*at(page, *place))
    second = boxes(page, 2)[1]
    assert second == pytest.approx([84, 24, 108, 54], abs=1.0)
    expect(page.locator("#boxes li:nth-child(2) button")).to_have_attribute("aria-pressed", "true")
    shot(page, "two-boxes")

    page.fill("#box-left input", "90")
    page.press("#box-left input", "Enter")
    page.wait_for_selector('#pad .w-box.w-current[x="90"]')
    page.fill("#box-right input", "80")  # inverted: refused, and the box stays
    page.press("#box-right input", "Tab")
    page.wait_for_selector("#region-line .w-refused")
    refused = page.locator("#region-line .w-refused").get_attribute("data-announce")
    expect(page.locator("#announcer")).to_have_text(refused)
    expect(page.locator("#region-line")).to_contain_text("its left has to be below its right")
    numbers_become(page, [90, *second[1:]])
    assert boxes(page, 2)[1][0] == 90

    page.click("#boxes li:nth-child(1) button")
    page.wait_for_selector('#boxes li:nth-child(1) button[aria-pressed="true"]')
    page.click("#box-remove")
    boxes(page, 1)
    page.click("#boxes-clear")
    boxes(page, 0)
    expect(page.locator("#region-line")).to_contain_text("No box yet")
    page.mouse.click(*at(page, 0.1, 0.1))  # a corner, left lying when the tool is changed
    page.wait_for_selector("#pad .w-rubber")
    tab(page, "Brush")
    tab(page, "Box")
    page.mouse.click(*at(page, 0.6, 0.6))
    page.wait_for_selector("#pad .w-rubber")
    boxes(page, 0)
    page.keyboard.press("Escape")
    page.focus("#box-add")
    page.keyboard.press("Enter")  # without any pointer
    assert boxes(page, 1) == [[30, 15, 90, 45]]
    drag(page, (0.2, 0.2), (0.201, 0.9))  # clipped to something, however thin
    assert len(boxes(page, 2)) == 2


def test_rows_of_parts(desktop: Any, tmp_path: Path) -> None:
    page = desktop
    upload(page, tmp_path / "square.png", (64, 64))
    expect(page.locator("#pad .w-box")).to_have_count(0)
    attribute(page)
    expect(page.locator("#rows-box")).to_be_hidden()
    tab(page, "Box")
    drag(page, (0.05, 0.05), (0.5, 0.5))
    boxes(page, 1)
    attribute(page)
    page.wait_for_selector("#rows .w-row:nth-child(2)")
    expect(page.locator("#scope img")).to_have_attribute("alt", "The part of your picture")
    tab(page, "Brush")
    drag(page, (0.6, 0.6), (0.9, 0.6), (0.9, 0.9))
    page.wait_for_selector("#pad .w-paint")
    attribute(page)
    page.wait_for_selector("#rows .w-row:nth-child(3)")
    captions = page.locator("#rows figcaption b")
    expect(captions).to_have_text(["whole picture", "box 1", "painted part 1"])
    second = page.locator("#rows .w-row:nth-child(2)")
    expect(second).to_contain_text(re.compile(r"\d+ of 12 as for the whole"))
    shot(page, "rows")
    page.click("#rows .w-row:nth-child(2) li:nth-child(3) button")
    page.wait_for_selector("#record dl")
    page.click("#rows-clear")
    page.wait_for_selector("#rows-box", state="hidden")


def test_a_link_with_a_box_asks_about_it(site: Site, chromium: Any) -> None:
    link = "?prompt=ak+by+0&seed=3&method=pixel&k=4&region=2,2,9,9;10.5,1,14,5"
    page = visit(chromium, site, link, viewport={"width": 1280, "height": 900})
    page.wait_for_selector("#attribute-status .w-done")
    assert boxes(page, 2) == [[2, 2, 9, 9], [10.5, 1, 14, 5]]
    expect(page.locator("#scope img")).to_have_attribute("alt", "The part of your picture")
    page.wait_for_function("document.querySelector('#link textarea, #link input').value")
    again = page.locator("#link textarea, #link input").first.input_value()
    assert "region=2%2C2%2C9%2C9%3B10.5%2C1%2C14%2C5" in again
    assert page.broken == []
    page.context.close()


def test_brush_undo_erase_and_clear(desktop: Any, tmp_path: Path) -> None:
    page = desktop
    upload(page, tmp_path / "other.png", (80, 60))
    tab(page, "Brush")
    drag(page, (0.4, 0.1), (0.4, 0.9))
    page.wait_for_selector("#pad .w-paint")
    page.click("#brush-clear")
    page.wait_for_selector("#pad .w-paint", state="detached")
    expect(page.locator("#region-line")).to_contain_text("Nothing painted yet")
    for row in (0.2, 0.5, 0.8):  # quickly one after another: none is lost
        drag(page, (0.2, row), (0.8, row))
    page.wait_for_function("document.querySelectorAll('#w-in polyline').length === 3")
    shot(page, "brush")
    page.click("#brush-undo")
    page.wait_for_function("document.querySelectorAll('#w-in polyline').length === 2")
    page.check("#brush-erase input")
    page.wait_for_selector('#pad .w-marks[data-erase="yes"]')
    drag(page, (0.1, 0.2), (0.9, 0.2))
    page.wait_for_selector('#w-in polyline[stroke="black"]', state="attached")
    tab(page, "Whole")
    expect(page.locator("#region-line")).to_contain_text("whole picture counts")
    tab(page, "Brush")
    expect(page.locator("#w-in polyline")).to_have_count(3)  # kept while another tab counted


def test_the_brush_follows_its_slider_by_keys_mouse_typing_and_reset(
    desktop: Any, tmp_path: Path
) -> None:
    page = desktop
    upload(page, tmp_path / "wide.png", (100, 50))
    tab(page, "Brush")
    slider = page.locator("#brush-width input[type=range]")

    def paints(percent: int) -> None:
        """So wide a brush, in percent of the picture's 100 px."""
        page.wait_for_selector(f'#pad .w-marks[data-radius="{percent / 2:g}"]', state="attached")

    paints(10)
    slider.focus()
    for key, percent in (("ArrowRight", 11), ("ArrowDown", 10), ("End", 50), ("Home", 2)):
        page.keyboard.press(key)
        paints(percent)
    frame = slider.bounding_box()
    at_work: list[int] = [0]  # how many requests are, after each that begins or ends
    page.on("request", lambda _: at_work.append(at_work[-1] + 1))
    page.on("requestfinished", lambda _: at_work.append(at_work[-1] - 1))
    page.mouse.move(frame["x"] + 8, frame["y"] + frame["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 3, steps=40)
    page.wait_for_function("document.querySelector('#pad .w-marks').dataset.radius > 10")
    page.mouse.move(frame["x"] + frame["width"] + 9, frame["y"] + 3, steps=40)
    page.mouse.up()
    paints(50)
    assert max(at_work) == 1  # one place after another, the last where the page is still at work
    page.fill("#brush-width input[type=number]", "30")
    paints(30)
    page.click("#brush-width .reset-button")
    paints(10)


def test_by_touch_on_a_portrait(phone: Any, tmp_path: Path) -> None:
    page = phone
    upload(page, tmp_path / "tall.png", (48, 96))
    tab(page, "Box")
    for place in ((0.25, 0.25), (0.75, 0.5)):
        page.touchscreen.tap(*at(page, *place))
    (tapped,) = boxes(page, 1)
    assert tapped == pytest.approx([12, 24, 36, 48], abs=1.0)

    before = page.evaluate("window.scrollY")
    touch_drag(page, (0.1, 0.6), (0.9, 0.9))
    assert boxes(page, 2)[1] == pytest.approx([4.8, 57.6, 43.2, 86.4], abs=1.0)
    assert page.evaluate("window.scrollY") == before  # the drag drew, and did not scroll
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.fill("#box-bottom input", "96")
    page.press("#box-bottom input", "Enter")
    page.wait_for_function("document.querySelector('.w-current').getAttribute('y') * 1 > 50")
    shot(page, "phone")

    tab(page, "Brush")
    touch_drag(page, (0.2, 0.3), (0.8, 0.3))
    page.wait_for_selector("#pad .w-paint")
    expect(page.locator("#region-line")).to_contain_text("painted part")


def touch_drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A finger's drag through the browser's own input pipeline."""
    session = page.context.new_cdp_session(page)
    (x0, y0), (x1, y1) = at(page, *start), at(page, *end)
    path = [(x0 + (x1 - x0) * i / 6, y0 + (y1 - y0) * i / 6) for i in range(7)]
    for i, (x, y) in enumerate(path):
        kind = "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
