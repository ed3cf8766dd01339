"""Small pieces of HTML shared by the panels. Everything that came from a record or a visitor goes
through `text`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from attribution.artists import UNKNOWN
from attribution.report import png_bytes
from attribution.types import Record

# A click on (or Enter on) anything with data-id inside the component is a `select` event with that
# id.
PICK = """
element.addEventListener('click', (event) => {
  const picked = event.target.closest('[data-id]');
  if (picked && element.contains(picked)) trigger('select', {id: picked.dataset.id});
});
"""

# Events of the page's own, without gradio's progress; AT_ONCE: beside the queue, too.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {**QUIET, "queue": False}

# What a score is, by a method's kind: its short label, and a sentence.
KINDS = {
    "unlearning": (
        "loss change",
        "How much worse the model gets at a picture when it forgets yours.",
    ),
    "gradient": ("gradient", "How alike a picture and yours pull at the model's weights."),
    "similarity": ("similarity", "How alike a picture and yours look. The model plays no part."),
    "control": ("control", "Drawn at random: what finding nothing looks like."),
}

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def text(value: object) -> str:
    """Escaped for element content and attribute values."""
    return escape(str(value), quote=True)


def block(value: str = "", *, elem_id: str | None = None, **options: Any) -> gr.HTML:
    """A piece of the page's own HTML, without gradio's prose styles."""
    options = {"js_on_load": None, "apply_default_css": False, "padding": False, **options}
    return gr.HTML(value, elem_id=elem_id, **options)


def pickable(
    value: str = "", *, elem_id: str | None = None, script: str = "", **options: Any
) -> gr.HTML:
    """HTML whose elements with `data-id` can be chosen: `.select(fn)`, then `picked_id`."""
    return block(value, elem_id=elem_id, js_on_load=PICK + script, **options)


def picked_id(event: gr.EventData) -> str:
    """The `data-id` of what was chosen."""
    return str(getattr(event, "id", ""))


def data_uri(image: Image.Image) -> str:
    """An image inside the page, for those too short-lived to have an address."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"


def heading(number: int | None, title: str, words: str = "") -> str:
    """A step's heading: its number, what it is, and one line of explanation."""
    badge = "" if number is None else f'<span class="w-number" aria-hidden="true">{number}</span>'
    line = f'<p class="w-lead">{text(words)}</p>' if words else ""
    return f'<div class="w-heading"><h2>{badge}{text(title)}</h2>{line}</div>'


def chips(items: Iterable[tuple[str, str]], label: str) -> str:
    """Clickable suggestions, each (id, words); nothing at all when there are none."""
    buttons = "".join(
        '<li><button type="button" class="w-chip" '
        f'data-id="{text(key)}">{text(words)}</button></li>'
        for key, words in items
    )
    if not buttons:
        return ""
    return f'<div class="w-chips"><p>{text(label)}</p><ul>{buttons}</ul></div>'


def name_of(record: Record) -> str:
    """What a record shows, in short: its caption without the artists that stand beside it, where
    they end it (titles of collections of drawings are often the collection's); else its title.
    """
    caption = next(iter(record.captions), "")
    subject, by, artists = caption.rpartition(", by ")
    if by and set(re.split(r", | and ", artists)) == set(record.artists):
        return subject
    return record.title or caption or record.id


def people(artists: Iterable[str]) -> str:
    """Artists as a phrase."""
    return ", ".join(artists) or UNKNOWN


@dataclass(frozen=True)
class Unit:
    """A power of ten that makes an answer's scores readable: shown = score / 10**exponent."""

    exponent: int

    @classmethod
    def of(cls, scores: np.ndarray) -> Unit:
        """Multiples of three, so that the greatest score shows one to three digits before the
        point.
        """
        top = float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0))
        if top == 0.0 or 0.1 <= top < 1000:
            return cls(0)
        return cls(3 * math.floor(math.log10(top) / 3))

    def show(self, score: float, digits: int = 3) -> str:
        """A score in this unit with `digits` significant figures below 1,000, and a true minus
        sign.
        """
        if not math.isfinite(score):
            return "–"
        value = score / 10.0**self.exponent
        whole = len(str(int(abs(value))))
        shown = f"{value:.{max(digits - whole, 0)}f}"
        return "0" if float(shown) == 0 else shown.replace("-", "−")

    @property
    def words(self) -> str:
        """The unit as it stands after a label, e.g. "×10⁻³"; empty when there is none."""
        return f"×10{str(self.exponent).translate(SUPERSCRIPTS)}" if self.exponent else ""


def label_of(kind: str) -> str:
    """A kind's short label: loss change, gradient, similarity or control."""
    return KINDS.get(kind, (kind, ""))[0]


def by_kind(methods: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The registry's methods grouped, kinds in the order of `KINDS`; none is left out."""
    listed = list(methods)
    kinds = dict.fromkeys((*KINDS, *(m["kind"] for m in listed)))
    groups = {kind: [m for m in listed if m["kind"] == kind] for kind in kinds}
    return {kind: group for kind, group in groups.items() if group}


def with_code(line: str) -> str:
    """A line of text, what stands between backticks as code."""
    parts = text(line).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))
