"""Detect and Words, without a browser: what counts, what is drawn, what is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from app.heatmap import glow
from app.jobs import Jobs
from app.pad import counted, marks
from app.panels.detect import Detect, found_list, word_list
from app.panels.rows import said_of
from app.parts import DETECT, WORDS, Parts, marks_of
from app.session import Session
from attribution.detection.attention import WordMaps
from attribution.detection.protocol import Detection
from attribution.types import Query, Region
from tests.app.conftest import PatientEngine
from tests.tiny import tiny_images

ME: Any = SimpleNamespace(session_hash="me")
DOG, CAT = Detection((10, 10, 60, 40), 0.9, "dog"), Detection((20, 12, 40, 30), 0.5, "a <cat>")
PROMPT = "a dog and a red cat, by Ann"


def query(*regions: Region) -> Query:
    return Query(PROMPT, tiny_images(1)[0].resize((100, 50)), regions=regions)


def test_an_emptied_field_is_refused_and_not_filled_in_from_the_prompt(
    engine: PatientEngine,
) -> None:
    with gr.Blocks():
        detect = Detect(engine, Jobs(engine))
    for emptied in ("", " ", " . "):
        (ended,) = detect.find(Session(query=query()), emptied, 0.3, 0.25, "grounding-dino", ME)
        assert "What to detect is empty" in ended[detect.step.line]


def start() -> Parts:
    return Parts.of(query())


def maps(hot: int) -> WordMaps:
    """The word at `hot` is looked for in the lower right quarter, the others nowhere."""
    grid = np.ones((7, 4, 4), dtype=np.float32)
    grid[hot, 2, 3] = 5.0
    return WordMaps(PROMPT, grid, (100, 50))


def test_the_best_counts_until_others_are_ticked() -> None:
    parts = start().on(DETECT)
    assert "Nothing ticked" in counted(parts) and found_list(parts) == ""
    parts = parts.detected([DOG, CAT])
    assert parts.regions == (Region(DOG.box),) and parts.called == "dog"
    assert "Ticked, dog: 30 % of the picture counts, as “dog”." in counted(parts)
    (pick,) = marks_of('[{"pick": 1}]')
    parts = parts.tick(pick)
    assert parts.regions == (Region(DOG.box), Region(CAT.box)) and parts.called == "dog and a <cat>"
    parts = parts.tick(0).tick(7)
    assert parts.regions == (Region(CAT.box),)
    assert parts.tick(1).regions == ()
    assert parts.detected([]).regions == () and "Nothing found" in found_list(parts.detected([]))


def test_what_was_found_is_drawn_small_ones_on_top_and_escaped() -> None:
    parts = start().on(DETECT).detected([CAT, DOG])
    drawn, listed = marks(parts), found_list(parts)
    assert drawn.index('data-pick="1"') < drawn.index('data-pick="0"')
    assert drawn.count("w-current") == 1 and 'data-tool="pick"' in drawn
    assert "a &lt;cat&gt;" in listed and "<cat>" not in listed + drawn
    assert listed.count('aria-pressed="true"') == 1 and "0.50" in listed


def test_a_word_selects_where_it_is_hot() -> None:
    parts = start().on(WORDS)
    assert "No word chosen" in counted(parts)
    parts = parts.say("dog")
    assert "not looked yet" in counted(parts) and parts.regions == ()
    parts = parts.looked(maps(1))
    (region,) = parts.regions
    assert region.mask is not None and region.mask.size == (100, 50)
    assert region.mask.getbbox()[0] > 50 and parts.called == "dog"
    assert "looked for “dog”" in counted(parts) and "<image" in marks(parts)
    assert parts.hotter(0.9).share < parts.share
    assert "nowhere in particular" in counted(parts.say("red cat"))
    assert parts.say("red cat").regions == () and parts.say("zebra").regions == ()


def test_words_are_phrases_then_words() -> None:
    listed = word_list(start().say("red cat"))
    names = ["dog", "red cat", "a", "and", "red", "cat", "by", "ann"]
    places = [listed.index(f'data-id="{name}"') for name in names]
    assert places == sorted(places)
    assert listed.count("aria-pressed") == 1 and 'data-id="red cat" aria-pressed="true"' in listed


def test_rows_are_called_by_what_was_found() -> None:
    parts = start().on(DETECT).detected([DOG])
    assert said_of(query(Region(DOG.box)), parts) == "dog"
    assert said_of(query(Region(CAT.box)), parts) == ""
    assert said_of(query(), start()) == ""


def test_the_glow_is_white_where_nothing_counts() -> None:
    parts = start().on(WORDS).say("dog").looked(maps(1))
    assert parts.maps is not None and parts.hot is not None
    seen = np.asarray(glow(parts.maps.heat(parts.places), parts.hot))
    assert seen.shape == (50, 100, 4)
    inside = np.asarray(parts.hot) > 128
    assert (seen[~inside, :3] == 255).all() and (seen[inside, 0] == 217).all()
    assert seen[inside, 3].max() > seen[inside, 3].min()
    large = glow(np.ones((600, 900), dtype=np.float32), parts.hot.resize((900, 600)))
    assert large.size == (256, 171)


def test_marks_from_the_pad_stay_checked() -> None:
    from attribution.types import UserError

    for wrong in ('[{"pick": "x"}]', '[{"pick": null}]', '[{"pick": 1e999}]'):
        with pytest.raises(UserError, match="draw it again"):
            marks_of(wrong)
