"""Learn: every method of the registry in three sentences and a formula, for a class."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.jobs import public
from app.markup import KINDS, block, by_kind, label_of, text
from attribution.engine import Engine

LEAD = (
    "All methods answer one question with a number for each training picture, higher for more "
    "influential. They differ in what they take influence to be."
)
SYMBOLS = (
    r"$\hat z$ your picture, $z$ a training picture, $\theta$ the model's weights, $L$ "
    r"its error on a picture, $\tau(\hat z, z)$ the score."
)
# KaTeX comes with gradio and is served by this page's own server.
DELIMITERS: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


class Learn:
    """Kinds, and below each its methods, folded."""

    def __init__(self, engine: Engine) -> None:
        block(f'<p class="w-lead">{LEAD}</p>')
        gr.Markdown(SYMBOLS, latex_delimiters=DELIMITERS, elem_classes="w-symbols")
        for kind, group in by_kind(engine.methods()).items():
            with gr.Column(elem_classes="w-kind"):
                title = label_of(kind).capitalize()
                block(f"<h3>{title}</h3><p>{text(KINDS.get(kind, ('', ''))[1])}</p>")
                for method in group:
                    with gr.Accordion(
                        method["title"], open=False, elem_id=f"learn-{method['name']}"
                    ):
                        gr.Markdown(lesson(method), latex_delimiters=DELIMITERS)


def lesson(method: dict[str, Any]) -> str:
    """A method as Markdown; one without a lesson yet has its line of explanation."""
    words = method["lesson"] or method["explanation"]
    formula = f"\n\n$$\n{method['formula']}\n$$" if method["formula"] else ""
    lacking = "" if method["available"] else f"\n\nNot at hand here: {public(method['why'])}."
    return f"{words}{formula}\n\n*Source: {method['source']}*{lacking}"
