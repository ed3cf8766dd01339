"""Racing: a few timesteps for every candidate, all of them only where the top can be reached.

Candidates run in heats. After each wave the records that cannot reach the top k are dropped:

| code | meaning |
|---|---|
| `d` | paired difference: a record's cell less the k-th best's at the same timestep |
| s² | variance of d over the timesteps, pooled over the records that could go on |
| bound | mean(d) + confidence · √(s² / n · (1 − n/T)): the mean over all T from the n seen so far |

A record whose bound is below zero is out, and so are all but the best `survivors`. First come the
timesteps whose base losses differ most between records: so do their changes, which then decide most
of the mean, and a bound from them is a cautious one. (For v models and the loss these are the large
ones.) The last heat gives the survivors every other timestep: the answer's scores are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attribution.numbers import is_whole
from attribution.reduce import cells_at, reduce_cells
from attribution.types import UserError

# (timesteps, survivors) of each wave: how many timesteps, or which, and how many go on.
Waves = Sequence[tuple[int | Sequence[int], int]]
MOST_RECORDS = 4096


@dataclass(frozen=True)
class Race:
    """A schedule on an index. waves: (columns, survivors), columns being positions in its
    `n_timesteps` timesteps; k: how many are to be shown; confidence: standard errors of the bound.
    """

    waves: tuple[tuple[tuple[int, ...], int], ...]
    n_timesteps: int
    k: int
    confidence: float

    @property
    def rest(self) -> tuple[int, ...]:
        """Columns that only the survivors get."""
        first = {column for columns, _ in self.waves for column in columns}
        return tuple(column for column in range(self.n_timesteps) if column not in first)

    def sizes(self, records: int) -> list[tuple[int, int]]:
        """(records at most, columns) of each heat of so many candidates."""
        kept = [min(keep, records) for _, keep in self.waves]
        columns = [len(columns) for columns, _ in self.waves]
        return list(zip([records, *kept], [*columns, len(self.rest)], strict=True))


@dataclass(frozen=True)
class Heat:
    """What to evaluate next: columns of the records at `positions`, int64; last: all is known of
    them afterwards.
    """

    positions: np.ndarray
    columns: tuple[int, ...]
    last: bool = True


def plan(
    waves: Waves,
    timesteps: Sequence[int],
    base_loss: np.ndarray,
    k: int,
    records: int,
    confidence: float,
    shown: int,
) -> Race | None:
    """The race of so many candidates at an index's timesteps; None where it would save nothing.

    base_loss: [N, captions, flips, T], for the order of the timesteps that are only counted; those
    that are named become the nearest there are. Survivors are stated for a top `shown` and grow
    with k. UserError as in `check_waves`.
    """
    check_waves(waves)
    planned: list[tuple[tuple[int, ...], int]] = []
    free = list(by_spread(base_loss))
    for wanted, keep in waves:
        if isinstance(wanted, int):
            columns = tuple(sorted(free[:wanted]))
        else:
            columns = _nearest(wanted, timesteps, free)
        if not columns or len(columns) == len(free):
            break
        free = [column for column in free if column not in columns]
        planned.append((columns, max(k, -(-keep * max(k, shown) // shown))))
    if not planned or planned[-1][1] >= records:
        return None
    return Race(tuple(planned), len(timesteps), k, confidence)


def by_spread(base_loss: np.ndarray) -> tuple[int, ...]:
    """Columns of [N, captions, flips, T] by their standard deviation over records, greatest first;
    of at most MOST_RECORDS records.
    """
    some = base_loss[:: -(-len(base_loss) // MOST_RECORDS) or 1]
    spread = np.nanstd(some.astype(np.float64), axis=(0, 1, 2))
    return tuple(int(column) for column in np.argsort(-spread, kind="stable"))


def heats(cells: np.ndarray, race: Race, rivals: int, also: np.ndarray) -> Iterator[Heat]:
    """The heats of a race over the first `rivals` records of `cells` [M, captions, flips, T].

    The caller fills in a heat's cells before it asks for the next. also: positions of records, of
    the rivals or not, that go through every heat whatever they score.
    """
    alive = np.arange(rivals)
    seen: list[int] = []
    for columns, keep in race.waves:
        yield Heat(_with(alive, also), columns, last=False)
        seen += columns
        alive = alive[survivors(cells[alive][:, :, :, seen], race, keep)]
    yield Heat(_with(alive, also), race.rest)


def survivors(cells: np.ndarray, race: Race, keep: int) -> np.ndarray:
    """Positions of those that can still reach the top k, best first, int64; at least k of them.

    cells: [M, captions, flips, n], the timesteps seen so far. keep: how many may go on at most.
    """
    scores, _, flip = reduce_cells(cells)
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    first = order[: max(keep, race.k)]
    n = cells.shape[-1]
    if n < 2 or len(first) <= race.k:
        return first
    own = _by_timestep(cells, flip)[first]
    d = own - own[race.k - 1]
    variance = d[np.arange(len(d)) != race.k - 1].var(axis=1, ddof=1).mean()
    error = np.sqrt(variance / n * (1.0 - n / race.n_timesteps))
    reach = d.mean(axis=1) + race.confidence * error >= 0.0
    return first[reach | (np.arange(len(first)) < race.k)]


def simulate(whole: np.ndarray, race: Race) -> tuple[np.ndarray, int]:
    """(the cells that a race over `whole` [M, captions, flips, T] would evaluate, NaN elsewhere;
    how many they are): what a schedule would have found, without a forward pass.
    """
    cells = np.full_like(whole, np.nan)
    for heat in heats(cells, race, len(whole), np.empty(0, dtype=np.int64)):
        where = cells_at(whole, heat.positions, heat.columns)
        cells[where] = whole[where]
    return cells, int(np.isfinite(cells).sum())


def _by_timestep(cells: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Mean over the captions there are of the winning flip, float64 [M, n]."""
    own = cells[np.arange(len(cells)), :, flip].astype(np.float64)
    there = np.isfinite(own)
    return np.where(there, own, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def _with(alive: np.ndarray, also: np.ndarray) -> np.ndarray:
    return np.concatenate([alive, also[~np.isin(also, alive)]])


def _nearest(
    wanted: Sequence[int], timesteps: Sequence[int], free: Sequence[int]
) -> tuple[int, ...]:
    """Free columns whose timesteps are nearest to the wanted ones, each taken once."""
    left, found = list(free), []
    for t in wanted:
        if left:
            column = min(left, key=lambda column: abs(timesteps[column] - t))
            left.remove(column)
            found.append(column)
    return tuple(sorted(found))


def check_waves(waves: Waves) -> None:
    """UserError for a schedule that is none."""
    numbers: list[object]
    try:
        parts = [([n] if isinstance(n, int) else list(n), keep) for n, keep in waves]
        numbers = [n for part, keep in parts for n in (*part, keep)]
    except (TypeError, ValueError):
        numbers = [None]
    if not all(is_whole(n) and n >= 0 for n in numbers):
        raise UserError(
            "racing is a list of waves: how many timesteps (or which), and how many candidates go "
            "on, as in [(1, 192), ([750, 850], 64)]"
        )
