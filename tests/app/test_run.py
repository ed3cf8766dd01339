"""Step 3 without a browser: what it refuses, in the words of its own fields."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.jobs import Ended, Jobs
from app.panels.run import Run
from app.session import Session
from attribution.types import Query
from tests.app.conftest import HELD_OUT, RECORDS, PatientEngine
from tests.tiny import tiny_images

ME: Any = SimpleNamespace(session_hash="me")


@pytest.mark.parametrize(
    ("asked", "words"),
    [(3.7, ", not 3.7."), (RECORDS, f", not {RECORDS}."), (None, ": type one.")],
)
def test_how_many_to_show_is_refused_by_its_name_and_its_limit(
    engine: PatientEngine, asked: Any, words: str
) -> None:
    with gr.Blocks():
        run = Run(engine, Jobs(engine))
    session = Session(query=Query("a", tiny_images(1)[0]))
    ((_, ended),) = run.attribute(session, "pixel", asked, False, ME)
    assert isinstance(ended, Ended) and ended.how == "refused"
    limit = RECORDS - HELD_OUT
    assert ended.words == f"How many to show has to be a whole number from 1 to {limit}{words}"
