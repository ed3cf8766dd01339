"""Saved answers that show at once, so that the first useful thing takes one click."""

from __future__ import annotations

from app.jobs import public
from app.markup import block, data_uri, pickable, text
from attribution.engine import Engine
from attribution.types import Example, UserError


class Examples:
    """Loads the saved examples of this index when the page starts; those of another index are
    refused.
    """

    def __init__(self, engine: Engine) -> None:
        self.saved, refused = load(engine)
        lead = "Start with an example; its answer is already there." if self.saved else ""
        words = " ".join(filter(None, (lead, refused)))
        if words:
            block(f'<p class="w-examples-lead">{text(words)}</p>')
        self.list = pickable(
            examples_html(self.saved), elem_id="examples", visible=bool(self.saved)
        )

    def find(self, prompt: str, seed: int, method: str) -> Example | None:
        """The example whose whole answer is that of a shared link, if there is one."""
        for example in self.saved.values():
            same = (example.query.prompt, example.query.seed) == (prompt, seed)
            if same and example.attributions[0].method == method:
                return example
        return None


def load(engine: Engine) -> tuple[dict[str, Example], str]:
    """(examples by slug, why any were refused)."""
    saved: dict[str, Example] = {}
    refused = ""
    for slug in engine.examples():
        try:
            saved[slug] = engine.example(slug)
        except UserError as error:
            refused = f"Not shown: {public(str(error))}."
    return saved, refused


def examples_html(saved: dict[str, Example]) -> str:
    """One button per example: its picture and its prompt."""
    items = "".join(
        f'<li><button type="button" class="w-example" data-id="{text(slug)}">'
        f'<img src="{data_uri(example.query.image)}" '
        f'alt=""><span>{text(example.query.prompt)}</span>'
        "</button></li>"
        for slug, example in saved.items()
    )
    return f'<ul class="w-examples">{items}</ul>'
