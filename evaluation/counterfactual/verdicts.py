"""What the report says of leave-K-out: who is first, how sure that is, what chance does, what a
retraining takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from evaluation.counterfactual.compare import ENOUGH, Block, Paired, block, difference
from evaluation.counterfactual.lines import RANDOM, Lines
from evaluation.counterfactual.tables import (
    asked_last,
    chosen,
    comparison,
    equals_random,
    every_method,
    left_out,
    table_1,
)
from evaluation.counterfactual.tasks import SEEN
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error

# Ours, of which AbU and AbU+ are the paper's and the aim's; abu-shift is no rival of theirs.
OURS = ("abu", "abu-ekfac", "abu-kfac", "abu-ekfac-full", "abu-shift")
PAPERS, LATER = ("abu", "abu-ekfac"), ("abu-kfac", "abu-ekfac-full")
AIMED = (*PAPERS, *LATER)
BOTH = "both intervals above 0"


def summary(head: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> Summary:
    """Table 1, who is first, and what a retraining takes."""
    lines = Lines(head, units)
    if not lines.known or not lines.trainings:
        return Summary((Figure("leave-K-out", f"{len(lines.trainings)} trainings done"),))
    begun = left_out(lines)
    notes = (*([begun] if begun else []), note(lines))
    return Summary(figures(lines), tuple(comparison(lines, table_1(lines))), notes)


def figures(lines: Lines) -> tuple[Figure, ...]:
    """All that the lines say in a number."""
    parts = (_first, _unseen, _control, _draws, _costs)
    return tuple(figure for part in parts for figure in part(lines))


def _first(lines: Lines) -> Iterator[Figure]:
    """The paper's AbU or AbU+ against the best of the others, at every K, then the best of AIMED,
    and who else that one is not told apart from. Best of the others is whichever leaves the least
    of a lead, each on all the queries that the two share: they may share more with one than with
    another."""
    for found in table_1(lines):
        papers, ours = (found.best_of(some, "delta_loss") for some in (PAPERS, AIMED))
        rest = [label for label in found.order("delta_loss") if label not in (*OURS, RANDOM)]
        what = f"leave-{found.k}-out, ΔL ×10⁻³:"
        for one in dict.fromkeys((papers, ours)):
            if one is not None and rest:
                pair = _closest(lines, found, one, rest)[0]
                verdict = pair.above if pair.n >= ENOUGH else None
                told = difference(pair, both=True)
                yield Figure(f"{what} {one} less the best other", told, BOTH, verdict)
        if ours is not None and rest:
            further = _closest(lines, found, ours, rest)[1:]
            near = [difference(pair, both=True) for pair in further if not pair.told_apart]
            name = f"{what} {ours} less each further method it is not told apart from"
            yield Figure(name, "; ".join(near) or "none")


def _unseen(lines: Lines) -> Iterator[Figure]:
    """Whichever of AIMED was best on the other pictures, on those asked about last: less the best
    of the other kinds there. Too few for a verdict."""
    every = chosen(lines, every_method(lines))
    for there in asked_last(lines):
        before = block(lines, every, there.k, among=SEEN)
        asked = [label for label in AIMED if label in there.values]
        ours = before and before.best_of(asked, "delta_loss")
        rest = [label for label in there.order("delta_loss") if label not in (*OURS, RANDOM)]
        if ours and rest:
            told = difference(there.paired(ours, rest[0], "delta_loss"), both=True)
            name = f"leave-{there.k}-out, ΔL ×10⁻³, pictures asked about last: {ours} less the best"
            yield Figure(f"{name} other", told)


def _closest(lines: Lines, found: Block, ours: str, rest: Sequence[str]) -> list[Paired]:
    """`ours` less each of `rest`, the least lead first."""
    pairs = (_shared(lines, found, ours, other) for other in rest)
    return sorted(pairs, key=lambda pair: pair.mean)


def _shared(lines: Lines, found: Block, ours: str, other: str) -> Paired:
    """Two methods on every query that both have, where the block has those that all do."""
    arms = {name: lines.labels[name] for name in (ours, other)}
    two = block(lines, arms, found.k, control=False)
    return (two or found).paired(ours, other, "delta_loss")


def _control(lines: Lines) -> Iterator[Figure]:
    for found in table_1(lines):
        ours = found.best_of(AIMED, "delta_loss")
        if ours and RANDOM in found.values:
            ratio = found.mean(ours, "delta_loss") / max(found.mean(RANDOM, "delta_loss"), 1e-12)
            equal = equals_random(lines, found, ours)
            value = f"{ratio:.2f} times" + (f", equals removing {equal} at random" if equal else "")
            yield Figure(f"leave-{found.k}-out, ΔL of {ours} over that of random", value)


def _draws(lines: Lines) -> Iterator[Figure]:
    """How much two random removals differ: what the page holds a single proof against."""
    for k in lines.random_sizes:
        if gaps := random_gaps(lines, k):
            median, most = (100 * float(np.quantile(gaps, share)) for share in (0.5, 0.9))
            yield Figure(
                f"two random removals of {k}: relative loss of a picture differs by",
                f"{most:.1f} points in nine of ten pairs (median {median:.1f})",
            )


def random_gaps(lines: Lines, k: int) -> list[float]:
    """Of every two draws of K and every measured picture: the difference of its relative loss."""
    base = np.array(lines.base["losses"])
    drawn = [np.array(line["losses"]) / base - 1.0 for line in lines.random(k)]
    return [float(gap) for a, b in combinations(drawn, 2) for gap in np.abs(a - b)]


def _costs(lines: Lines) -> Iterator[Figure]:
    seconds = [line["seconds"][0] for line in lines.trainings.values()]
    where = {f"{line['threads']} thread, {line['device']}" for line in lines.trainings.values()}
    told = f"{np.median(seconds):.0f} s (median of {len(seconds)}; {'; '.join(sorted(where))})"
    yield Figure("one retraining", told)
    other = [line for line in lines.seeds if line["seed"] != lines.recipe.seed]
    if other:
        queries = [entry.id for entry in lines.gallery[: lines.head["settings"]["measured"]]]
        # the models of a picture are no pictures of their own
        values = [np.mean([lines.values(x, q)["delta_loss"] for x in other]) for q in queries]
        mean, error = (1e3 * x for x in mean_error(values))
        said = f"{mean:.2f} ± {error:.2f} ({len(queries)} pictures, each by {len(other)} models)"
        yield Figure("nothing removed, another seed: ΔL ×10⁻³", said)
    same = [line for line in lines.seeds if "weights_differ_by" in line]
    if same:
        worst = max(line["weights_differ_by"] for line in same)
        yield Figure("removing nothing: weights differ from the model's by", f"{worst:.3g}", "0")


def note(lines: Lines) -> str:
    """How the numbers were measured."""
    said = lines.head["settings"]
    recipe = said["recipe"]
    return (
        f"{recipe['steps']} optimiser steps of {recipe['batch_size']}; losses at stride "
        f"{said['stride']}, pictures by {said['steps']} DDIM steps at guidance scale "
        f"{said['guidance']:g}. Means over queries ± one standard error, **best** and *second*; "
        "differences are paired, intervals are 95 % bootstrap intervals over queries, and in the "
        "verdicts Student's beside them: of a dozen pictures the bootstrap's are too narrow. No "
        "interval is corrected for the number of methods and Ks, or for ours being whichever of "
        f"{', '.join(AIMED)} has the greatest mean on these very pictures. "
        f"{', '.join(LATER)} were tried because of what AbU+ missed on the pictures reported here "
        "(docs/proof.md): verdicts on them are not blind. More tables "
        "and figures: `python -m evaluation tables`."
    )
