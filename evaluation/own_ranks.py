"""What the lines of the verb `self-influence` say, of one method and of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation import roster
from evaluation.results import Figure, Run, Summary
from evaluation.statistics import wilson

TARGET = 0.95
# Fewer records than these are no verdict.
ENOUGH = 100
# Records that did not come first are listed up to here.
MOST_LISTED = 12
NOT_FIRST = (
    *("record not first", "rank", "first was", "pixel distance"),
    *("CLIP cosine", "near-duplicate"),
)
HEADS = (
    *("method", "records", "itself first", "or a near-duplicate", "95 % interval"),
    *("median rank", "mean rank", "among", "seconds a record"),
)

Units = Sequence[dict[str, Any]]


def _kind(settings: dict[str, Any]) -> str:
    """Runs of unlearning methods have a configuration in the place of a kind."""
    return str(settings.get("kind", roster.UNLEARNING))


def _asked(settings: dict[str, Any]) -> str:
    """The method; of unlearning also how far, which is not the same in all runs."""
    config = settings.get("config")
    if not config:
        return str(settings["method"])
    steps = "step" if config["steps"] == 1 else "steps"
    far = f"+{config['relative_increase']:.0%} in {config['steps']} {steps}"
    return f"{settings['method']} ({far})"


def _passed(units: Units) -> tuple[int, int]:
    """(records that came first, records where they or a near-duplicate did)."""
    own = sum(unit["rank"] == 1 for unit in units)
    return own, own + sum(bool(unit.get("duplicate")) for unit in units)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """How many of the records came first; the promise is of the unlearning methods."""
    n, settings = len(units), head["settings"]
    own, passed = _passed(units)
    low, high = wilson(passed, n)
    promised = _kind(settings) == roster.UNLEARNING
    figure = Figure(
        f"self-influence, {_asked(settings)}: itself or a near-duplicate first",
        f"{passed} of {n} ({low:.0%} to {high:.0%}), itself {own}",
        f">= {TARGET * ENOUGH:.0f} of {ENOUGH}" if promised else "",
        passed >= TARGET * n if n >= ENOUGH and promised else None,
    )
    late = [unit for unit in units if unit["rank"] > 1]
    table = [NOT_FIRST, *map(_late, late[:MOST_LISTED])] if late else []
    notes = [_protocol(settings, units)]
    if len(late) > MOST_LISTED:
        notes.append(f"{len(late) - MOST_LISTED} more records did not come first.")
    return Summary((figure,), tuple(table), tuple(notes))


def _late(unit: dict[str, Any]) -> tuple[str, ...]:
    numbers = f"{unit['distance']:.3f}", f"{unit['cosine']:.3f}"
    yes = "yes" if unit["duplicate"] else "no"
    return (unit["unit"], str(unit["rank"]), unit["first"], *numbers, yes)


def _protocol(settings: dict[str, Any], units: Units) -> str:
    steps = ", ".join(map(str, settings.get("timesteps", ())))
    how = f"timesteps {steps}" if steps else "asked about its picture and caption"
    return (
        f"Among itself and {settings['others']} random training records, image and flip, "
        f"{how}; {_seconds(units):.1f} s a record."
    )


def _seconds(units: Units) -> float:
    return float(np.mean([unit["seconds"] for unit in units]))


def together(runs: Sequence[Run]) -> Summary:
    """A row a run, methods in the order in which they are asked."""
    found = [(head["settings"], units) for head, units in runs]
    found.sort(key=lambda run: roster.place(run[0]["method"], _kind(run[0])))
    return Summary((), (HEADS, *(_row(settings, units) for settings, units in found)))


def _row(settings: dict[str, Any], units: Units) -> tuple[str, ...]:
    own, passed = _passed(units)
    low, high = wilson(passed, len(units))
    ranks = [unit["rank"] for unit in units]
    middle = f"{np.median(ranks):g}", f"{np.mean(ranks):.1f}"
    interval = f"{low:.0%} to {high:.0%}"
    among = f"{1 + settings['others']}"
    counts = str(len(units)), str(own), str(passed)
    return (_asked(settings), *counts, interval, *middle, among, f"{_seconds(units):.2f}")
