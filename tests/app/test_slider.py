"""Sliders: a number beyond what one may have is taken to the nearest, and ends no event."""

from __future__ import annotations

import gradio as gr
import pytest

from app.page import build_page
from app.slider import Slider
from tests.app.conftest import PatientEngine


@pytest.mark.parametrize(
    ("typed", "taken"), [(5000, 96), (0, 1), (-3, 1), (3.7, 4), (2.5, 3), (96.4, 96), (None, 1)]
)
def test_whole_steps_take_the_nearest_whole_number(typed: float | None, taken: int) -> None:
    slider = Slider(1, 96, step=1, render=False)
    for value in (slider.preprocess(typed), slider.postprocess(typed)):
        assert value == taken and isinstance(value, int)


@pytest.mark.parametrize(("typed", "taken"), [(1.2, 0.9), (0, 0.1), (0.33, 0.33), (None, 0.1)])
def test_other_steps_take_every_number_within(typed: float | None, taken: float) -> None:
    assert Slider(0.1, 0.9, step=0.05, render=False).preprocess(typed) == taken


def test_every_slider_of_the_page_is_such_a_one(engine: PatientEngine) -> None:
    sliders = [one for one in build_page(engine).blocks.values() if isinstance(one, gr.Slider)]
    assert {type(one) for one in sliders} == {Slider}
    assert {one.get_block_name() for one in sliders} == {"slider"}


def test_what_follows_a_slider_follows_every_kind_of_move(engine: PatientEngine) -> None:
    """Gradio tells of keys by `input` alone, of the reset button by `release` alone."""
    page = build_page(engine)
    listens = [fn for fn in page.fns.values() if isinstance(_target(page, fn.targets), Slider)]
    told = {_target(page, fn.targets).elem_id: {name for _, name in fn.targets} for fn in listens}
    assert all(fn.trigger_mode == "always_last" for fn in listens)
    assert told.pop("timestep") == {"input"}  # its field may be left without leaving all timesteps
    live = ("brush-width", "words-keep", "compare-k")
    assert told == {name: {"input", "release"} for name in live}


def _target(page: gr.Blocks, targets: list[tuple[int | None, str]]) -> gr.blocks.Block | None:
    """What the first of an event's triggers belongs to."""
    return page.blocks.get(targets[0][0]) if targets else None
