"""One training record, large: picture, heat map, caption, artists, source, licence."""

from __future__ import annotations

from app import heatmap
from app.markup import Unit, data_uri, name_of, people, text
from app.panels.gallery import thumbnail
from app.session import Session
from attribution.engine import Engine
from attribution.types import Attribution, Record, UserError

UNKNOWN = "not stated"
EMPTY = '<p class="w-empty">Choose a picture to see it large.</p>'
# The heat map stays off once it was switched off, and the gallery marks the record that is open.
KEEP = """
element.addEventListener('change', (event) => {
  if (event.target.id === 'heat-switch') window.whence.heat = event.target.checked;
});
const shown = () => {
  const heat = element.querySelector('#heat-switch');
  if (heat) heat.checked = window.whence?.heat !== false;
  const id = element.querySelector('[data-record]')?.dataset.record;
  window.whence?.mark(id);
};
watch('value', shown);
"""
# On a narrow screen the gallery is far above.
BACK = '<button type="button" class="w-ghost w-back" data-reveal="gallery">Gallery ↑</button>'
# What a heat map shows, by what the method tracks: for the switch, the legend, and one word.
HEAT = {
    "loss": (
        "where the model got worse",
        '<span><i class="w-worse"></i>the model got worse here</span>'
        '<span><i class="w-better"></i>got better</span>',
        "worsening",
    ),
    "shift": (
        "where the model's guess moved",
        '<span><i class="w-worse"></i>the model\'s guess moved here</span>',
        "movement",
    ),
}


class RecordView:
    """Renders a record as the answer stands; no component of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def show(self, session: Session, record_id: str | None, whose: str = "") -> str:
        """The record's sheet; the first of the answer when none is chosen. whose: of an answer that
        is not the gallery's, its name, in the place of the way to the neighbours."""
        answer = session.view
        if answer is None or not answer.ids:
            return EMPTY
        try:
            record = self.engine.record(record_id or answer.ids[0])
        except UserError:
            return EMPTY
        rank = answer.ids.index(record.id) + 1 if record.id in answer.ids else None
        return (
            f'<article class="w-card-box w-record" data-record="{text(record.id)}" '
            f'aria-label="{text(name_of(record))}">'
            f"{self._browse(answer, rank, session.top_k, whose)}"
            f"{self._figure(record, answer, rank)}"
            f"{self._facts(record, answer, rank)}{self._parts(record)}</article>"
        )

    def _browse(self, answer: Attribution, rank: int | None, top_k: int, whose: str) -> str:
        """Previous and next in the gallery's order."""
        if whose:
            return f'<nav class="w-browse"><span>#{rank} for {text(whose)}</span></nav>'
        if rank is None:
            return '<nav class="w-browse"><span>Not among the scored pictures</span></nav>'
        shown = min(top_k, len(answer.ids))
        before = _turn(answer.ids[rank - 2] if rank > 1 else None, "‹", "Previous")
        after = _turn(answer.ids[rank] if rank < shown else None, "›", "Next")
        total = f"{shown}" if rank <= shown else f"{len(answer.ids):,} scored"
        place = f"<span>#{rank} of {total}</span>{BACK}"
        return f'<nav class="w-browse">{before}{place}{after}</nav>'

    def _figure(self, record: Record, answer: Attribution, rank: int | None) -> str:
        """The picture on the white square the model saw it on, and the heat map over it behind a
        switch.
        """
        picture = thumbnail(record, self.engine.index_hash)
        change = answer.heatmaps.get(record.id)
        if change is None or rank is None:
            words = "Heat maps are kept for the top pictures only." if answer.heatmaps else ""
            note = f'<p class="w-caption">{words}</p>' if words else ""
            return f'<div class="w-figure">{picture}</div>{note}'
        shows, legend, noun = HEAT[answer.params.get("tracks", "loss")]
        words = heatmap.in_words(change, noun)
        layer = data_uri(heatmap.overlay(change))
        alt = f"Heat map of {shows} by unlearning. {words}"
        return (
            '<input type="checkbox" id="heat-switch" class="w-heat-switch" checked>'
            f'<label for="heat-switch" class="w-switch">Show {shows}</label>'
            f'<div class="w-figure">{picture}<img class="w-heat" src="{layer}" '
            f'alt="{text(alt)}"></div>'
            f'<div class="w-heat-words"><p class="w-legend">{legend}</p>'
            f'<p class="w-caption">{text(words)}</p></div>'
        )

    def _facts(self, record: Record, answer: Attribution, rank: int | None) -> str:
        unit = Unit.of(answer.scores)
        facts = [("Artist" if len(record.artists) == 1 else "Artists", people(record.artists))]
        facts += [("Caption", caption) for caption in record.captions]
        if record.title != name_of(record):
            facts.append(("Title", record.title))
        if rank is not None:
            facts.append(("Score", _score(answer, rank - 1, unit)))
        facts += [("Kind", record.category), ("Source", record.source or UNKNOWN)]
        facts.append(("Licence", record.licence or UNKNOWN))
        rows = "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in facts if v)
        return f"<h3>{text(name_of(record))}</h3><dl>{rows}</dl>"

    def _parts(self, record: Record) -> str:
        """A collage's drawings, each of which can be opened."""
        if not record.parts:
            return ""
        drawings = self.engine.records([record_id for record_id, _ in record.parts])
        items = "".join(
            f'<li><button type="button" class="w-card" data-id="{text(d.id)}">'
            f'<span class="w-thumb">{thumbnail(d, self.engine.index_hash)}</span>'
            f'<span class="w-label">{text(name_of(d))}</span></button></li>'
            for d in drawings
        )
        return f'<h4>A collage of</h4><ul class="w-grid w-small">{items}</ul>'


def _turn(record_id: str | None, sign: str, words: str) -> str:
    target = "disabled" if record_id is None else f'data-id="{text(record_id)}"'
    return f'<button type="button" class="w-ghost" aria-label="{words}" {target}>{sign}</button>'


def _score(answer: Attribution, i: int, unit: Unit) -> str:
    error = float(answer.standard_error[i])
    shown = f"{unit.show(float(answer.scores[i]))} {unit.words}".strip()
    spread = f" (± {unit.show(error)})" if error == error else ""
    mirrored = "; its mirror image scored higher" if answer.flip[i] else ""
    return f"{shown}{spread}{mirrored}"
