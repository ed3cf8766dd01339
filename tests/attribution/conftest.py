"""A tiny whole index, made once by the precompute command itself, and an engine on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attribution import layout
from attribution.engine import Engine
from attribution.types import Attribution, Query
from tests.attribution.worlds import FAST, finished
from tests.precompute.worlds import image_folder, make_index, tiny_clip


@pytest.fixture(scope="session")
def tiny_index(tmp_path_factory, tiny_model) -> Path:
    """An index of 12 records, the last two held out, with CLIP rows; its model advises 4 steps."""
    folder = tmp_path_factory.mktemp("world")
    model = shutil.copytree(tiny_model, folder / "model")
    (model / layout.GENERATION).write_text('{"steps": 4, "guidance": 2.0}')
    data, clip = image_folder(folder / "data", 12, captions=2), tiny_clip(folder / "clip")
    return make_index(folder / "index", model, data, "--clip", str(clip))


@pytest.fixture(scope="session")
def engine(tiny_index) -> Engine:
    """Shared: leave it as it is."""
    return Engine(tiny_index, "cpu")


@pytest.fixture(scope="module")
def query(engine) -> Query:
    """A picture that the tiny model drew."""
    return finished(engine.generate("ak by 0", 7, **FAST))


@pytest.fixture(scope="module")
def answer(engine, query) -> Attribution:
    """AbU's, about every training record."""
    return finished(engine.attribute(query, ("abu",), top_k=4, exhaustive=True))
