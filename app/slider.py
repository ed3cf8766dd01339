"""The page's sliders: a number typed beside one is taken to the nearest that it may have."""

from __future__ import annotations

import math
from abc import ABCMeta
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta


class _Unwritten(ComponentMeta):
    """Without gradio's habit of writing a .pyi file beside the source of each component."""

    def __new__(cls, *names: Any) -> Any:
        return ABCMeta.__new__(cls, *names)


class Slider(gr.Slider, metaclass=_Unwritten):
    """Gradio's own ends an event with an error for a number beyond its limits. page.js does the
    same to the field, once what is typed there is done with.
    """

    def preprocess(self, payload: float | None) -> float:
        """Within the limits, and whole where the steps are; the least for an emptied field."""
        value = self.minimum if payload is None else payload
        value = min(max(value, self.minimum), self.maximum)
        return math.floor(value + 0.5) if self.step == 1 else value
