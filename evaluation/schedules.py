"""Racing schedules tried on stored cells: what each would have found, and for how many forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attribution import defaults
from attribution.racing import Waves, plan, simulate
from attribution.reduce import score_cells
from evaluation.candidates import share

# (timesteps, survivors) of each wave; no wave: every cell. Counted timesteps come in the order of
# the spread of their base losses; the named ones are spaced evenly, for comparison.
SCHEDULES: tuple[Waves, ...] = (
    (),
    ((1, 128), (2, 48)),
    ((1, 128), (2, 64)),
    ((1, 192), (2, 48)),
    ((1, 192), (2, 64)),
    ((1, 192), (2, 96)),
    ((1, 256), (2, 64)),
    ((1, 256), (2, 96)),
    ((1, 192), (1, 96)),
    ((1, 256), (1, 96)),
    ((1, 384), (1, 96)),
    ((1, 384), (1, 128), (1, 64)),
    ((1, 512), (1, 128), (1, 64)),
    ((1, 384), (2, 96)),
    ((1, 384), (2, 128)),
    ((2, 128), (2, 64)),
    ((2, 64),),
    ((2, 96),),
    ((3, 64),),
    ((3, 96),),
    ((2, 192), (1, 64)),
    ((1, 640), (1, 128), (1, 64)),
    ((1, 768), (1, 192), (1, 96)),
    ((1, 1024), (1, 256), (1, 96)),
    (([150, 450, 750], 64),),
    (([150, 450, 750], 128),),
)


def label(waves: Waves) -> str:
    """A schedule in words: '1 → 192, 2 → 64' scores all at one timestep, 192 at two more, …"""
    parts = [
        f"{wanted if isinstance(wanted, int) else 't = ' + ', '.join(map(str, wanted))} → {keep}"
        for wanted, keep in waves
    ]
    return "; ".join(parts) if parts else "no race"


@dataclass(frozen=True)
class Stored:
    """One query's exhaustive answer. cells: float32 [n, captions, flips, T] of the records `rows`
    int64 [n], ascending; base_loss: [N, captions, flips, T] at the same `timesteps`.
    """

    cells: np.ndarray
    rows: np.ndarray
    timesteps: Sequence[int]
    base_loss: np.ndarray
    k: int

    @property
    def truth(self) -> np.ndarray:
        """Rows of the exhaustive top k."""
        return self.top(np.arange(len(self.rows)), self.cells)

    def top(self, places: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Rows of the k best of the records at `places`, by their cells."""
        scores = score_cells(cells)[0]
        order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
        return self.rows[places[order[: self.k]]]

    def raced(self, candidates: np.ndarray, waves: Waves) -> tuple[float, int]:
        """(recall of the exhaustive top k, forwards) of a race among some rows, by the library's
        own rule.
        """
        places = np.searchsorted(self.rows, candidates)
        cells = self.cells[places]
        race = plan(
            waves,
            self.timesteps,
            self.base_loss,
            self.k,
            len(places),
            defaults.RACING_CONFIDENCE,
            self.k,
        )
        forwards = int(np.isfinite(cells).sum())
        if race is not None:
            cells, forwards = simulate(cells, race)
        return share(self.truth, self.top(places, cells)), forwards
