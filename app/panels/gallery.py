"""The answer as a gallery, and the same rows as a table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from app.markup import Unit, name_of, people, text
from app.served import picture_url
from attribution.engine import Engine
from attribution.types import Attribution, Record

COLUMNS = (
    "Rank",
    "Score",
    "± error",
    "Title",
    "Artist",
    "Caption",
    "Mirrored",
    "Source",
    "Licence",
)


class Gallery:
    """Renders rankings; the components that show them belong to the answer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # A partial gallery shows mostly the records of the one before it.
        self._record = lru_cache(maxsize=512)(engine.record)

    def records(self, ids: Sequence[str]) -> list[Record]:
        return [self._record(record_id) for record_id in ids]

    def cards(self, answer: Attribution, top_k: int, *, partial: bool = False) -> str:
        """`#1 · score · title · artist` under each picture; every card opens its record."""
        ids = answer.ids[:top_k]
        unit = Unit.of(answer.scores)
        top = max(float(answer.scores[0]), 0.0) if len(ids) else 0.0
        cards = "".join(
            self._card(record, rank, float(answer.scores[rank - 1]), unit, top)
            for rank, record in enumerate(self.records(ids), start=1)
        )
        kind = "w-grid w-partial" if partial else "w-grid"
        return f'<ol class="{kind}" aria-label="Most influential training pictures">{cards}</ol>'

    def _card(self, record: Record, rank: int, score: float, unit: Unit, top: float) -> str:
        artists = people(record.artists)
        width = 100 * max(score, 0.0) / top if top > 0 else 0.0
        label = f"Number {rank}, score {unit.show(score)}, {name_of(record)} by {artists}. Open."
        return (
            f'<li><button type="button" class="w-card" data-id="{text(record.id)}" '
            f'aria-label="{text(label)}">'
            f'<span class="w-thumb">{thumbnail(record, self.engine.index_hash)}</span>'
            '<span class="w-scorebar" aria-hidden="true"><span '
            f'style="width:{width:.1f}%"></span></span>'
            f'<span class="w-label"><b>#{rank}</b> · {unit.show(score)}{DOT}'
            f'<span class="w-title">{text(name_of(record))}</span>{DOT}'
            f'<span class="w-artist">{text(artists)}</span></span></button></li>'
        )

    def strip(self, records: Sequence[Record], answer: Attribution) -> str:
        """The control: records drawn at random, with their scores where they were scored."""
        unit = Unit.of(answer.scores)
        scores = dict(zip(answer.ids, answer.scores.tolist(), strict=True))
        if answer.control is not None:  # at every timestep, whether or not they were candidates
            control = answer.control
            scores |= dict(zip(control.ids, control.scores.tolist(), strict=True))
        ranks = {record_id: i + 1 for i, record_id in enumerate(answer.ids)}
        items = "".join(
            f'<li><button type="button" class="w-card" data-id="{text(r.id)}">'
            f'<span class="w-thumb">{thumbnail(r, self.engine.index_hash)}</span>'
            f'<span class="w-label">{_standing(r.id, scores, ranks, unit)}{DOT}'
            f'<span class="w-title">{text(name_of(r))}</span></span></button></li>'
            for r in records
        )
        return f'<ul class="w-grid w-small" aria-label="Random training pictures">{items}</ul>'

    def table(self, answer: Attribution, top_k: int) -> str:
        """The gallery's rows as a table, for reading, copying and screen readers."""
        unit = Unit.of(answer.scores)
        head = "".join(f'<th scope="col">{_column(name, unit)}</th>' for name in COLUMNS)
        rows = "".join(
            f"<tr>{_row(_cells(answer, i, record, unit))}</tr>"
            for i, record in enumerate(self.records(answer.ids[:top_k]))
        )
        return (
            '<div class="w-scroll" tabindex="0" role="region" aria-label="The answer as a table">'
            "<table "
            f'class="w-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )


DOT = '<span class="w-dot"> · </span>'


def thumbnail(record: Record, index_hash: str) -> str:
    """The display image with its caption as alternative text."""
    alt = record.captions[0] if record.captions else name_of(record)
    url = picture_url(record.id, index_hash)
    return f'<img src="{text(url)}" alt="{text(alt)}" loading="lazy" decoding="async">'


def _standing(record_id: str, scores: dict[str, float], ranks: dict[str, int], unit: Unit) -> str:
    if record_id not in scores:
        return "not on the shortlist"
    score = unit.show(scores[record_id])
    return f"<b>#{ranks[record_id]}</b> · {score}" if record_id in ranks else f"<b>{score}</b>"


def _column(name: str, unit: Unit) -> str:
    return f"{name} {unit.words}" if unit.words and name in ("Score", "± error") else name


def _row(cells: tuple[str, ...]) -> str:
    return "".join(f"<td>{text(cell)}</td>" for cell in cells)


def _cells(answer: Attribution, i: int, record: Record, unit: Unit) -> tuple[str, ...]:
    return (
        str(i + 1),
        unit.show(float(answer.scores[i])),
        unit.show(float(answer.standard_error[i])),
        name_of(record),
        people(record.artists),
        record.captions[0] if record.captions else "",
        "yes" if answer.flip[i] else "no",
        record.source,
        record.licence,
    )
