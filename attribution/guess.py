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
# The others come from here to the end of the ranking, a share of it, one from each equal part:
# far enough down that a top that might change places with the first is not called wrong.
FROM = 0.1


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


def choose(answer: Attribution, seed: int) -> Round:
    """The first of an answer and five of lower rank, shuffled; UserError for fewer than six."""
    ids, count = answer.ids, scored(answer)
    if count < DRAWINGS:
        raise UserError(f"a guess needs {DRAWINGS} scored drawings, not {count}")
    dice = random.Random(f"guess {seed} {ids[0]}")
    first = max(1, min(round(FROM * count), count - (DRAWINGS - 1)))
    edges = [first + (count - first) * i // (DRAWINGS - 1) for i in range(DRAWINGS)]
    others = [ids[dice.randrange(low, high)] for low, high in pairwise(edges)]
    shown = [ids[0], *others]
    dice.shuffle(shown)
    return Round(tuple(shown), ids[0], answer.method)


def verdicts(game: Round, answers: Sequence[Attribution]) -> list[Verdict]:
    """What every method at hand says, in the order given."""
    return [_verdict(game, answer) for answer in answers]


def _verdict(game: Round, answer: Attribution) -> Verdict:
    ranks = {i: ranks_of([answer], i)[answer.method] for i in game.ids}
    held = {i: rank for i, rank in ranks.items() if rank is not None}
    return Verdict(answer.method, ranks, min(held, key=held.__getitem__) if held else None)
