"""What the lines of `python -m evaluation own-parts` say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.objects.tables import TOP
from evaluation.objects.two_objects import PARTS
from evaluation.results import Figure, Summary
from evaluation.statistics import wilson

METHODS = ("abu-ekfac", "clip", "dino", "dtrak", "trak")
HEADS = (
    *("method", "regions", "own drawing before the other's", "95 % interval"),
    *(f"own in the top {TOP}", f"the other's in the top {TOP}", f"whole picture: in the top {TOP}"),
    "whole picture: own before the other's",
    *("median rank: own", "the other's", "whole picture", "among", "seconds an answer"),
)

# Before a part's name: the whole picture asked about by that part's words.
WHOLE_AS = "whole as "

Units = Sequence[dict[str, Any]]


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """The default method's figures, and a row a method, asked by the caption or by words."""
    of: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for unit in units:
        of.setdefault((unit["method"], "names" in unit), []).append(unit)
    figures = []
    for worded, how in ((False, ""), (True, " asked about in words of its own")):
        if some := of.get((METHODS[0], worded)):
            before, n = _before(_pairs(some))
            low, high = wilson(before, n)
            figures.append(
                Figure(
                    f"a region{how} ranks the drawing in it before the collage's other drawing",
                    f"{before} of {n} ({low:.0%} to {high:.0%}; {METHODS[0]})",
                )
            )
    steps = head["settings"]["timesteps"]
    scored = f"at timesteps {', '.join(map(str, steps))}" if steps else "raced as by default"
    note = (
        "Training collages asked about by one part's box; ranked are the pool and all parts, "
        f"unlearning methods {scored}. In words: by the part's noun in the place of the collage's "
        "caption, the whole picture by the same noun, too."
    )
    # a method's two rows beside each other, methods in the order in which they came
    names = list(dict.fromkeys(name for name, _ in of))
    rows = [_row(n, w, of[n, w]) for n in names for w in (False, True) if (n, w) in of]
    return Summary(tuple(figures), (HEADS, *rows), (note,))


def _pairs(units: Units, of: str = "") -> np.ndarray:
    """Ranks int64 [regions, (own, the other's)]; `of`: which answers, before the part's name."""
    return np.array([(u["ranks"][of + PARTS[i]][i], u["ranks"][of + PARTS[i]][1 - i])
                     for u in units for i in (0, 1)])  # fmt: skip


def _before(pairs: np.ndarray) -> tuple[int, int]:
    return int((pairs[:, 0] < pairs[:, 1]).sum()), len(pairs)


def _row(name: str, worded: bool, units: Units) -> tuple[str, ...]:
    pairs = _pairs(units)
    whole = np.array([rank for unit in units for rank in unit["ranks"].get("whole", ())])
    chosen = ""
    if worded:
        by_words = _pairs(units, WHOLE_AS)
        whole, chosen = by_words[:, 0], f"{_before(by_words)[0] / len(by_words):.2f}"
    before, n = _before(pairs)
    low, high = wilson(before, n)
    columns = pairs[:, 0], pairs[:, 1], whole
    shares = (f"{(ranks <= TOP).mean():.2f}" for ranks in columns)
    middle = (f"{np.median(ranks):g}" for ranks in columns)
    among = f"{np.mean([unit['among'] for unit in units]):,.0f}"
    seconds = f"{np.mean([unit['seconds'] for unit in units]):.1f}"
    counts = (
        f"{name}, in words" if worded else name,
        str(n),
        f"{before / n:.2f}",
        f"{low:.2f} to {high:.2f}",
    )
    return (*counts, *shares, chosen, *middle, among, seconds)
