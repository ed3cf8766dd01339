"""The link under an answer, without a browser: where there is none, why."""

from __future__ import annotations

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from app.panels.share import OPENS, Share
from app.parts import BRUSH, WORDS, Parts, Stroke
from app.session import Session
from attribution.detection.attention import WordMaps
from attribution.types import Query, Region
from tests.app.conftest import PatientEngine
from tests.attribution.answers import attribution
from tests.tiny import tiny_images

SIZE = (16, 16)


def regions_of_a_word() -> tuple[Region, ...]:
    grid = np.ones((1, 4, 4), dtype=np.float32)
    grid[0, 1, 1] = 5.0
    start = Parts(SIZE, prompt="dog").on(WORDS)
    return start.say("dog").looked(WordMaps("dog", grid, SIZE)).regions


def regions_of_a_stroke() -> tuple[Region, ...]:
    return Parts(SIZE).on(BRUSH).paint(Stroke(((8.0, 8.0),), 4.0)).regions


@pytest.mark.parametrize("regions", [regions_of_a_word(), regions_of_a_stroke()])
def test_a_free_form_has_no_link_whether_it_was_painted_or_looked_for(
    engine: PatientEngine, regions: tuple[Region, ...]
) -> None:
    link, why = said(engine, regions)
    assert link == "" and "painted or where the model looked" in why and "Boxes do fit" in why


def test_a_box_fits_and_an_upload_does_not(engine: PatientEngine) -> None:
    link, why = said(engine, (Region((1, 2, 3, 4)),))
    assert "region=1%2C2%2C3%2C4" in link and why == OPENS
    assert said(engine, (), seed=None)[1].startswith("An uploaded picture stays with you")


def said(
    engine: PatientEngine, regions: tuple[Region, ...], seed: int | None = 7
) -> tuple[str, str]:
    """The link of an answer about such a part, and what stands beside it."""
    with gr.Blocks():
        share = Share(engine)
    picture: Image.Image = tiny_images(1)[0].resize(SIZE)
    query = Query("dog", picture, seed=seed, regions=regions)
    return share._link(Session(query=query).answered(attribution(), 4))
