"""Which methods to compare: a box for each, by kind, from the registry; those that cannot run here
say what they lack.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.jobs import public
from app.markup import KINDS, block, by_kind, label_of, text, with_code
from app.session import Comparison
from attribution import defaults

Methods = list[dict[str, Any]]


class Choice:
    """The boxes to tick, one group per kind."""

    def __init__(self, methods: Methods) -> None:
        self.first = default_choice(methods)
        self.runnable = {m["name"] for m in methods if m["available"]}
        self.groups: dict[gr.CheckboxGroup, list[str]] = {}
        with gr.Row(elem_id="compare-methods", elem_classes="w-choice"):
            for kind, group in by_kind(methods).items():
                self._kind(kind, group)
        self.boxes = list(self.groups)

    def _kind(self, kind: str, group: Methods) -> None:
        """A kind's methods: those at hand to tick, the others with what they lack."""
        here = [m for m in group if m["available"]]
        lacking = [m for m in group if not m["available"]]
        title = label_of(kind).capitalize()
        with gr.Column(min_width=230, elem_classes="w-card-box"):
            block(f"<h3>{text(title)}</h3><p>{text(KINDS.get(kind, ('', ''))[1])}</p>")
            if here:
                self._boxes(f"Methods: {title}", f"compare-{kind}", here)
            if lacking:
                block(lacking_html(lacking))

    def _boxes(self, label: str, elem_id: str, here: Methods) -> None:
        names = [m["name"] for m in here]
        box = gr.CheckboxGroup(
            choices=[(m["title"], m["name"]) for m in here],
            value=[name for name in self.first if name in names],
            label=label,
            show_label=False,
            container=False,
            elem_id=elem_id,
        )
        self.groups[box] = names

    def chosen(self, comparison: Comparison, ticked: tuple[list[str], ...]) -> Comparison:
        """As ticked. A saved answer of a method that cannot run here has no box to untick."""
        boxless = [a.method for a in comparison.answers if a.method not in self.runnable]
        return comparison.choose([*(name for box in ticked for name in box), *boxless])

    def ticks(self, comparison: Comparison) -> dict[Any, Any]:
        """The boxes as the comparison has them."""
        return {
            box: gr.update(
                value=[name for name in names if name in comparison.chosen], interactive=True
            )
            for box, names in self.groups.items()
        }


def default_choice(methods: Methods) -> tuple[str, ...]:
    """One method of each kind that can run here: the default one, else the kind's first."""
    chosen = []
    for group in by_kind(m for m in methods if m["available"]).values():
        names = [m["name"] for m in group]
        chosen.append(defaults.METHOD if defaults.METHOD in names else names[0])
    return tuple(chosen)


def lacking_html(methods: Methods) -> str:
    """Methods that cannot run on this index: a box that cannot be ticked, why, and the remedy."""
    items = "".join(
        '<li><label><input type="checkbox" disabled> '
        f"{text(m['title'])}</label><details><summary>Not on this index: why?</summary>"
        f"<p>{with_code(public(m['why']))}.</p></details></li>"
        for m in methods
    )
    return f'<ul class="w-lacking">{items}</ul>'
