"""Guess first: six drawings, one of them the most influential for a picture. Pure and seeded.

>>> round = choose(answer, seed=0)
>>> round.ids, round.truth, verdicts(round, example.attributions)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from attribution.compare import ranks_of, scored
from attribution.types import Attribution, UserError

DRAWINGS = 6
# The others come from this share of the ranking to its end: far enough down that one which might
# change places with the first is not called wrong.
FROM = 0.05
# So many of them, at most, are what other methods put high: look-alikes that mattered less.
DECOYS = 2
HIGH = 24


@dataclass(frozen=True)
class Round:
    """ids: the drawings in the order shown. truth: the one ranked first by `method`."""

    ids: tuple[str, ...]
    truth: str
    method: str


@dataclass(frozen=True)
class Verdict:
    """What one method says of a round: rank per drawing (None: not in its answer), and its pick,
    the best ranked of them; None where it holds none.
    """

    method: str
    ranks: dict[str, int | None]
    pick: str | None


def choose(answer: Attribution, seed: int, decoys: Sequence[Attribution] = ()) -> Round:
    """The first of an answer and five of lower rank, shuffled: some that `decoys`, answers of other
    methods, put high, the others spread over the ranking. UserError for fewer than six.
    """
    ids, count = answer.ids, scored(answer)
    if count < DRAWINGS:
        raise UserError(f"a guess needs {DRAWINGS} scored drawings, not {count}")
    dice = random.Random(f"guess {seed} {ids[0]}")
    lower = ids[max(1, min(round(FROM * count), count - (DRAWINGS - 1))) : count]
    shown = [ids[0], *_decoys(lower, decoys, dice)]
    left = [name for name in lower if name not in shown]
    parts = DRAWINGS - len(shown)
    edges = [len(left) * i // parts for i in range(parts + 1)]
    shown += [left[dice.randrange(low, high)] for low, high in pairwise(edges)]
    dice.shuffle(shown)
    return Round(tuple(shown), ids[0], answer.method)


def _decoys(lower: Sequence[str], answers: Sequence[Attribution], dice: random.Random) -> list[str]:
    """At most one of each answer's top that is among `lower`."""
    there = set(lower)
    found: list[str] = []
    for answer in answers:
        high = [name for name in answer.ids[:HIGH] if name in there and name not in found]
        if high and len(found) < DECOYS:
            found.append(dice.choice(high))
    return found


def verdicts(game: Round, answers: Sequence[Attribution]) -> list[Verdict]:
    """What every method at hand says, in the order given."""
    return [_verdict(game, answer) for answer in answers]


def _verdict(game: Round, answer: Attribution) -> Verdict:
    ranks = {i: ranks_of([answer], i)[answer.method] for i in game.ids}
    held = {i: rank for i, rank in ranks.items() if rank is not None}
    return Verdict(answer.method, ranks, min(held, key=held.__getitem__) if held else None)
