"""Compare, drawn: a strip for each method, one record's rank under all of them, and what they
cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from app.markup import Unit, label_of, name_of, people, text
from app.panels.gallery import Gallery, thumbnail
from app.session import Comparison
from attribution.compare import ranks_of
from attribution.costs import Cost
from attribution.types import Attribution

Titles = Mapping[str, str]

EMPTY = '<p class="w-empty w-await">One strip for each method appears here, best first.</p>'
NONE_PICKED = '<p class="w-empty">Choose a picture to see its rank under every method.</p>'
BACK = '<button type="button" class="w-ghost w-back" data-reveal="strips">Strips ↑</button>'
# Toggled by the page's script with aria-current: the outline is not the only sign.
MARK = '<span class="w-mark">◆ chosen</span>'


class Strips:
    """Renders a comparison; the components that show it belong to the panel."""

    def __init__(self, gallery: Gallery, titles: Titles) -> None:
        self.gallery, self.titles = gallery, titles

    def strips(self, comparison: Comparison, k: int, *, running: str = "") -> str:
        """Finished strips in the registry's order, then what failed, runs or waits."""
        if not comparison.answers and not comparison.failed and not running:
            return EMPTY
        shown = comparison.shown
        parts = [self._strip(shown[name], k) for name in self.titles if name in shown]
        for name in comparison.missing:
            if why := comparison.failed.get(name):
                parts.append(self._line(name, f"No answer: {why}", "w-failed"))
            elif running:
                words = "at work …" if name == running else "waits for its turn"
                parts.append(self._line(name, words, ""))
        return f'<div class="w-strips">{"".join(parts)}</div>'

    def _strip(self, answer: Attribution, k: int) -> str:
        title, unit = self.titles[answer.method], Unit.of(answer.scores)
        records = self.gallery.records(answer.ids[:k])
        cards = "".join(
            f'<li><button type="button" class="w-card" data-id="{text(r.id)}" '
            f'aria-label="Number {i + 1}, {text(name_of(r))}. Its rank under every method.">'
            f'<span class="w-thumb">{thumbnail(r, self.gallery.engine.index_hash)}</span>'
            f'<span class="w-label"><b>#{i + 1}</b> {unit.show(float(answer.scores[i]))}{MARK}'
            "</span></button></li>"
            for i, r in enumerate(records)
        )
        scale = f" · scores {unit.words}" if unit.words else ""
        return (
            f'<section class="w-strip" aria-label="{text(title)}, {label_of(answer.kind)}">'
            f"{self._head(answer.method, answer.kind)}"
            f'<span class="w-value">{scope(answer)}{scale}</span></p>'
            f'<ol class="w-run">{cards}</ol></section>'
        )

    def _head(self, name: str, kind: str) -> str:
        badge = f'<span class="w-badge" data-kind="{text(kind)}">{label_of(kind)}</span>'
        return f'<p class="w-strip-head"><b>{text(self.titles[name])}</b> {badge if kind else ""} '

    def _line(self, name: str, words: str, kind: str) -> str:
        return (
            f'<section class="w-strip {kind}">{self._head(name, "")}'
            f'<span class="w-value">{text(words)}</span></p></section>'
        )

    def ranks(self, comparison: Comparison, record_id: str, k: int) -> str:
        """One record and where each method puts it."""
        answers = [comparison.shown[n] for n in self.titles if n in comparison.shown]
        if not record_id or not answers:
            return NONE_PICKED
        (record,) = self.gallery.records([record_id])
        ranks = ranks_of(answers, record_id)
        rows = "".join(
            f'<tr><th scope="row">{text(self.titles[a.method])}</th>'
            f"<td>{label_of(a.kind)}</td><td>{_rank(a, ranks[a.method])}</td></tr>"
            for a in answers
        )
        top = sum(rank is not None and rank <= k for rank in ranks.values())
        return (
            f'<article class="w-card-box w-record" data-record="{text(record.id)}" '
            f'data-announce="{text(name_of(record))}: in the top {k} of {top} of {len(answers)}">'
            f'<nav class="w-browse"><span>In the top {k} of <b>{top} of {len(answers)}</b> '
            f"methods</span>{BACK}</nav>"
            f'<div class="w-figure">{thumbnail(record, self.gallery.engine.index_hash)}</div>'
            f"<h3>{text(name_of(record))}</h3><p>{text(people(record.artists))}</p>"
            '<table class="w-table"><thead><tr><th scope="col">Method</th><th scope="col">Kind</th>'
            f'<th scope="col">Rank</th></tr></thead><tbody>{rows}</tbody></table></article>'
        )

    def costs(self, comparison: Comparison, costs: Mapping[str, Cost]) -> str:
        """Time, storage and precomputing of each shown method."""
        answers = [comparison.shown[n] for n in self.titles if n in comparison.shown]
        if not answers:
            return ""
        head = "".join(f'<th scope="col">{name}</th>' for name in COSTS)
        rows = "".join(
            f'<tr><th scope="row">{text(self.titles[a.method])}</th><td>{label_of(a.kind)}</td>'
            f"<td>{scope(a)}</td><td>{seconds(sum(a.seconds.values()))}</td>"
            f"<td>{_kept(costs[a.method])}</td><td>{_precomputed(costs[a.method])}</td></tr>"
            for a in answers
        )
        return (
            '<div class="w-scroll" tabindex="0" role="region" aria-label="What each method costs">'
            f'<table class="w-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
            "</div>"
        )


COSTS = ("Method", "Kind", "Scored", "Time", "Kept per training picture", "Precomputing each")


def scope(answer: Attribution) -> str:
    """How many training pictures a method scored for this answer."""
    how = "a shortlist of" if "shortlist" in answer.candidate_source else "all"
    return f"{how} {answer.candidates:,}"


def _rank(answer: Attribution, rank: int | None) -> str:
    if rank is not None:
        return f"<b>#{rank:,}</b> of {answer.candidates:,}"
    if len(answer.ids) < answer.candidates:
        return f"after the first {len(answer.ids):,}"
    return "not on its shortlist" if "shortlist" in answer.candidate_source else "not scored"


def seconds(value: float) -> str:
    """A duration with as many digits as it deserves."""
    if not math.isfinite(value):
        return "not recorded"
    if value >= 1:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    return f"{1000 * value:.0f} ms" if value >= 0.001 else "under 1 ms" if value else "none"


def size(count: int) -> str:
    """Bytes in words."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B" if count else "nothing"


def _kept(cost: Cost) -> str:
    """What lies in the index, and what a method makes when it is first asked."""
    if cost.memory:
        made = f"{size(cost.memory)} in memory, made when first asked"
        return f'nothing on disk<small class="w-parts">{made}</small>'
    return _with_parts(size(cost.bytes_per_record), {n: size(b) for n, b in cost.parts.items()})


def _precomputed(cost: Cost) -> str:
    parts = {step: seconds(value) for step, value in cost.seconds.items()}
    return _with_parts(seconds(cost.seconds_per_record), parts)


def _with_parts(total: str, parts: Mapping[str, Any]) -> str:
    """A sum, and what it is the sum of where that is more than one."""
    if len(parts) < 2 or total == "not recorded":
        return total
    listed = ", ".join(f"{text(name)} {value}" for name, value in parts.items())
    return f'{total}<small class="w-parts">{listed}</small>'
