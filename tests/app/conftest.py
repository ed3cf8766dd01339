"""The page as visitors get it: a real server over a tiny real index, and a headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when gradio is imported, as in app.py.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

from app.launch import launch
from attribution import layout, saved
from attribution.detection.registry import ENCODER
from attribution.engine import Engine
from attribution.types import Attribution
from precompute.extras import install_encoder
from tests.precompute.worlds import image_folder, make_index, tiny_clip
from tests.tiny_detector import tiny_detector

RECORDS = 40
HELD_OUT = 4

CHROMIUM_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)


class PatientEngine(Engine):
    """The real engine, with few sampling steps, and a pause after each step of work on demand: a
    tiny model is too fast to stop.
    """

    pause = 0.0
    steps = 8

    def generate(self, *args: Any, **options: Any) -> Iterator[Any]:
        yield from self._slowly(super().generate(*args, **{"steps": self.steps, **options}))

    def attribute(self, *args: Any, **options: Any) -> Iterator[Any]:
        yield from self._slowly(super().attribute(*args, **options))

    def _slowly(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            time.sleep(self.pause)
            yield item


@dataclass(frozen=True)
class Site:
    """A running page."""

    url: str
    engine: PatientEngine


@pytest.fixture(scope="session")
def tiny_index(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 40 synthetic pictures, 4 held out, with a tiny CLIP and a tiny detector."""
    root = tmp_path_factory.mktemp("world")
    data = image_folder(root / "data", RECORDS, held_out=HELD_OUT, side=32)
    clip = tiny_clip(root / "clip")
    index = make_index(root / "index", tiny_model, data, "--clip", str(clip))
    install_encoder(index, ENCODER, tiny_detector(root / "detector"))
    return index


@pytest.fixture(scope="session")
def engine(tiny_index: Path) -> PatientEngine:
    """The engine, its index with one saved example of its own, of four methods, and one of another
    index.
    """
    engine = PatientEngine(tiny_index, device="cpu")
    *_, query = engine.generate("bn by 3", 11)
    methods = ("abu", "clip", "pixel", "random")
    answer, *further = (a for a in engine.attribute(query, methods) if isinstance(a, Attribution))
    result = engine.result(query, [answer])
    for slug, index_hash in (("mine", engine.index_hash), ("foreign", "0" * 64)):
        folder = tiny_index / layout.EXAMPLES / slug
        saved.save_example(folder, query, [answer], result, index_hash, further)
    return engine


@pytest.fixture(scope="session")
def site(engine: PatientEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page on a free port, with its uploads in a folder of the test run."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    with served(engine) as url:
        yield Site(url, engine)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """The page's address, while it is up."""
    port = free_port()
    page = launch(engine, host="127.0.0.1", port=port, wait=False)
    yield f"http://127.0.0.1:{port}/"
    page.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; the tests that want it fail with a clear line where there is none."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("no Chromium found: apt-get install chromium, or set CHROMIUM=/path/to/it")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # milliseconds; a page draws when the machine lets it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=list(CHROMIUM_ARGUMENTS), headless=True
        )
        yield browser
        browser.close()
