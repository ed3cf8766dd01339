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
    *("median rank: own", "the other's", "whole picture", "among", "seconds an answer"),
)

Units = Sequence[dict[str, Any]]


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """The default method's figure, and a row a method."""
    names = list(dict.fromkeys(unit["method"] for unit in units))
    of = {name: [unit for unit in units if unit["method"] == name] for name in names}
    figures = []
    if (name := METHODS[0]) in of:
        before, n = _before(of[name])
        low, high = wilson(before, n)
        figures.append(
            Figure(
                "a region ranks the drawing in it before the collage's other drawing",
                f"{before} of {n} ({low:.0%} to {high:.0%}; {name})",
            )
        )
    steps = head["settings"]["timesteps"]
    scored = f"at timesteps {', '.join(map(str, steps))}" if steps else "raced as by default"
    note = (
        "Training collages asked about by one part's box; ranked are the pool and all parts, "
        f"unlearning methods {scored}."
    )
    return Summary(tuple(figures), (HEADS, *(_row(n, of[n]) for n in names)), (note,))


def _pairs(units: Units) -> np.ndarray:
    """Ranks int64 [regions, (own, the other's)]."""
    return np.array([(u["ranks"][PARTS[i]][i], u["ranks"][PARTS[i]][1 - i])
                     for u in units for i in (0, 1)])  # fmt: skip


def _before(units: Units) -> tuple[int, int]:
    pairs = _pairs(units)
    return int((pairs[:, 0] < pairs[:, 1]).sum()), len(pairs)


def _row(name: str, units: Units) -> tuple[str, ...]:
    pairs = _pairs(units)
    whole = np.array([rank for unit in units for rank in unit["ranks"]["whole"]])
    before, n = _before(units)
    low, high = wilson(before, n)
    columns = pairs[:, 0], pairs[:, 1], whole
    shares = (f"{(ranks <= TOP).mean():.2f}" for ranks in columns)
    middle = (f"{np.median(ranks):g}" for ranks in columns)
    among = f"{np.mean([unit['among'] for unit in units]):,.0f}"
    seconds = f"{np.mean([unit['seconds'] for unit in units]):.1f}"
    counts = name, str(n), f"{before / n:.2f}", f"{low:.2f} to {high:.2f}"
    return (*counts, *shares, *middle, among, seconds)
