"""How far methods agree, as two matrices: a table to a screen reader, a heat map to the eye, with
the number in every cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from app.markup import text
from app.session import Comparison
from attribution.compare import correlation_matrix, overlap_matrix
from attribution.types import Correlation

# More columns than these have their names written upwards.
FEW = 5

ALONE = '<p class="w-empty">Two methods or more are needed to see where they agree.</p>'
OVERLAP = "How many of the first {k} pictures two methods share. By chance: {chance}."
CORRELATION = (
    "How alike two methods order the pictures that both scored: 1 the same order, 0 none in "
    "common, −1 the reverse. A dash: fewer than ten in common."
)


def agreement(comparison: Comparison, titles: Mapping[str, str], k: int, n_train: int) -> str:
    """Both matrices over the shown methods, in the registry's order."""
    answers = [comparison.shown[name] for name in titles if name in comparison.shown]
    if len(answers) < 2:
        return ALONE
    names = [titles[a.method] for a in answers]
    overlaps = [
        [(v, "" if math.isnan(v) else f"{v:.0%} shared") for v in row]
        for row in overlap_matrix(answers, k)
    ]
    pairs = correlation_matrix(answers, comparison.correlations)
    orders = [[(c.rho, _over(c)) for c in row] for row in pairs]
    chance = f"{k / max(n_train, 1):.2f}"
    first = matrix(f"Overlap of the top {k}", OVERLAP.format(k=k, chance=chance), names, overlaps)
    second = matrix("Rank correlation", CORRELATION, names, orders)
    return f'<div class="w-matrices">{first}{second}</div>'


def _over(pair: Correlation) -> str:
    return f"over {pair.common:,} pictures"


def matrix(
    title: str, words: str, names: Sequence[str], cells: Sequence[Sequence[tuple[float, str]]]
) -> str:
    """A card with one matrix; each cell is (value in -1..1 or NaN, what it says on hovering)."""
    kind = "w-matrix" if len(names) <= FEW else "w-matrix w-many"
    head = "".join(f'<th scope="col"><span>{text(name)}</span></th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(_cell(*cell) for cell in row)}</tr>'
        for name, row in zip(names, cells, strict=True)
    )
    return (
        f'<div class="w-card-box"><h3>{text(title)}</h3><p>{text(words)}</p>'
        f'<div class="w-scroll" tabindex="0" role="region" aria-label="{text(title)}">'
        f'<table class="{kind}"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></div>"
    )


def _cell(value: float, words: str) -> str:
    """Teal for agreement, orange for its reverse, which the minus sign says too."""
    if not math.isfinite(value):
        return f'<td title="{text(words)}">–</td>'
    shown = f"{value:.2f}".replace("-", "−")
    shown = "0.00" if shown == "−0.00" else shown
    kind = ' class="w-minus"' if value < 0 else ""
    return (
        f'<td{kind} style="--w-share:{min(abs(value), 1.0):.2f}" title="{text(words)}">{shown}</td>'
    )
