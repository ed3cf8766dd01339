"""Parts of one picture, attributed one after another, row under row to be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app.markup import AT_ONCE, Unit, block, data_uri, heading, label_of, name_of, pickable, text
from app.panels.gallery import Gallery, thumbnail
from app.parts import Parts, outlined
from app.session import Session
from attribution.engine import Engine
from attribution.regions import key
from attribution.types import Attribution, Query

MOST_ROWS = 8
SHOWN = 12
WHOLE_PICTURE = "whole picture"
BLIND = {
    "ignored": "<br>it does not look at parts: this is the whole prompt's answer",
    "words": "<br>it looks at no picture: this is the answer to the words",
}
LEAD = (
    "Each part of this picture that you asked about, with what mattered most for it. A row stays "
    "until another picture is made."
)


@dataclass(frozen=True)
class Line:
    """One answered question: the part (its key and its name), and the best of the answer."""

    part: str
    name: str
    query: Query
    answer: Attribution

    @property
    def title(self) -> str:
        """The name, and the words that the part went by, where the method looks at words."""
        called = self.answer.params.get("called", "")
        if not called:
            return self.name
        return self.name + (", in its own words" if called == self.name else f", as “{called}”")


class Rows:
    """Rows of a picture's parts; hidden until there are two to compare."""

    def __init__(self, engine: Engine) -> None:
        self.gallery = Gallery(engine)
        self.titles = {m["name"]: m["title"] for m in engine.methods()}
        self.state: gr.State = gr.State(())
        with gr.Column(visible=False, elem_id="rows-box") as self.box:
            block(heading(None, "Part by part", LEAD))
            self.rows = pickable(elem_id="rows")
            self.clear = gr.Button("Clear the rows", size="sm", min_width=130, elem_id="rows-clear")
        self.outputs = [self.state, self.box, self.rows]
        self.clear.click(self.cleared, outputs=self.outputs, **AT_ONCE)

    def cleared(self) -> dict[Any, Any]:
        """Another picture has no rows yet."""
        return {self.state: (), self.box: gr.update(visible=False), self.rows: ""}

    def joined(self, session: Session, parts: Parts, lines: tuple[Line, ...]) -> dict[Any, Any]:
        """With the session's answer as the last row, in the place of the same question's; named as
        the parts that are chosen say, where they are those of the answer.
        """
        query, answer = session.query, session.answer
        if query is None or answer is None:
            return {self.state: lines}
        # a method that looks at no words answers the same by any
        part = key(replace(query, called=answer.params.get("called", "")))
        name = next((row.name for row in lines if place(row.query) == place(query)), "")
        name = name or said_of(query, parts) or name_part(query, lines)
        light = replace(answer, cells=None, heatmaps={}, control=None)
        kept = [row for row in lines if (row.part, row.answer.method) != (part, answer.method)]
        lines = (*kept, Line(part, name, query, light))[-MOST_ROWS:]
        return {
            self.state: lines,
            self.box: gr.update(visible=len(lines) > 1),
            self.rows: self.draw(lines),
        }

    def draw(self, lines: tuple[Line, ...]) -> str:
        """Every row: the part on the left, the best records on the right."""
        drawn = "".join(self._row(n, row, whole_of(row, lines)) for n, row in enumerate(lines))
        return f'<div class="w-rows">{drawn}</div>'

    def asked(self, row: Line) -> tuple[Session, str]:
        """A row's question and answer as a session, and its name."""
        session = Session().asked(row.query).answered(row.answer, SHOWN)
        return session, f"{row.title}, {self.titles.get(row.answer.method, row.answer.method)}"

    def _row(self, number: int, row: Line, whole: Line | None) -> str:
        answer, method = row.answer, self.titles.get(row.answer.method, row.answer.method)
        unit = Unit.of(answer.scores)
        cards = "".join(
            f'<li><button type="button" class="w-card" data-id="{number}|{text(record.id)}" '
            f'aria-label="{text(row.title)}, number {i + 1}: {text(name_of(record))}. Open.">'
            f'<span class="w-thumb">{thumbnail(record, self.gallery.engine.index_hash)}</span>'
            f'<span class="w-label"><b>#{i + 1}</b> {unit.show(float(answer.scores[i]))}</span>'
            "</button></li>"
            for i, record in enumerate(self.gallery.records(answer.ids[:SHOWN]))
        )
        seen = f'<img src="{data_uri(outlined(row.query))}" alt="Your picture, {text(row.title)}">'
        caption = (
            f"<b>{text(row.title)}</b><br>{text(method)}, {label_of(answer.kind)} {unit.words}"
            f"{BLIND.get(answer.params.get('region', ''), '') if row.part else ''}"
        )
        return (
            f'<section class="w-row" aria-label="{text(row.title)}, {text(method)}">'
            f"<figure>{seen}<figcaption>{caption}{common(row, whole)}</figcaption></figure>"
            f'<ol class="w-run">{cards}</ol></section>'
        )


def picked(data: str) -> tuple[int, str]:
    """(number of the row, record) of a card's `data-id`."""
    number, _, record = data.partition("|")
    return int(number), record


def whole_of(row: Line, lines: tuple[Line, ...]) -> Line | None:
    """The whole picture's row of the same method."""
    method = row.answer.method
    return next((one for one in lines if not one.part and one.answer.method == method), None)


def place(query: Query) -> str:
    """The part of the picture, whatever words it went by; "" for the whole."""
    return key(replace(query, called=""))


def said_of(query: Query, parts: Parts) -> str:
    """What the chosen parts show, where it is they that were asked about; else ""."""
    return parts.called if parts.called and parts.regions == query.regions else ""


def common(row: Line, whole: Line | None) -> str:
    """How many of the shown records the whole picture's row of the same method has too."""
    if whole is None or whole is row:
        return ""
    shared = len(set(row.answer.ids[:SHOWN]) & set(whole.answer.ids[:SHOWN]))
    return f"<br>{shared} of {SHOWN} as for the whole"


def name_part(query: Query, lines: tuple[Line, ...]) -> str:
    """What a part is called: parts of a kind are counted in the order they were asked about."""
    if not place(query):
        return WHOLE_PICTURE
    if any(region.mask is not None for region in query.regions):
        kind = "painted part"
    else:
        kind = "box" if len(query.regions) == 1 else f"{len(query.regions)} boxes,"
    # rows that were pushed out leave their numbers behind: none is given twice
    named = [row.name.removeprefix(f"{kind} ") for row in lines if row.name.startswith(kind)]
    return f"{kind} {1 + max((int(name) for name in named if name.isdigit()), default=0)}"
