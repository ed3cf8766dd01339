"""The page's sliders: a number typed beside one is taken to the nearest that it may have, and what
follows one follows it by mouse, keys, typing and its reset button.
"""

from __future__ import annotations

import math
from abc import ABCMeta
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta

from app.markup import AT_ONCE


class _Unwritten(ComponentMeta):
    """Without gradio's habit of writing a .pyi file beside the source of each component."""

    def __new__(cls, *names: Any) -> Any:
        return ABCMeta.__new__(cls, *names)


class Slider(gr.Slider, metaclass=_Unwritten):
    """Gradio's own ends an event with an error for a number beyond its limits. page.js does the
    same to the field, once what is typed there is done with.
    """

    def preprocess(self, payload: float | None) -> float:
        """Of what is typed."""
        return self.nearest(payload)

    def postprocess(self, value: float | None) -> float:
        """Of what the page sets, as from a link."""
        return self.nearest(value)

    def nearest(self, value: float | None) -> float:
        """Within the limits, and whole where the steps are; the least for an emptied field."""
        value = self.minimum if value is None else min(max(value, self.minimum), self.maximum)
        return math.floor(value + 0.5) if self.step == 1 else value

    def moves(self, work: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        """Every move does the work, one after another, those while it is done as the last of them.
        So does leaving the field. `input` knows no reset, `release` no keys."""
        moved = [self.input, self.release]
        gr.on(moved, work, inputs, outputs, trigger_mode="always_last", **AT_ONCE)
