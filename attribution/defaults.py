"""The numbers a default query runs with; `python -m evaluation` prints the measurements behind."""

from __future__ import annotations

from dataclasses import dataclass

METHOD = "abu-ekfac"
TOP_K = 24

# Sampling of a picture, where the model has no advice of its own (generation.json beside it).
STEPS = 50
GUIDANCE = 3.0

# Candidates each query rescores at most unless `exhaustive` is asked for; None: every training
# record. They come in turn from those of these sources that the index has
# (attribution/methods/candidates.py).
SHORTLIST: int | None = 1024
SHORTLIST_SOURCES: tuple[str, ...] = ("dtrak", "clip-text", "clip")

# Racing: at how many timesteps all that are left are scored, and how many of them then go on (for a
# top 24; more for more). Who is left after the last wave gets every other timestep.
RACING: tuple[tuple[int, int], ...] = ((1, 128), (2, 64))
# Where the output's shift is tracked, which one timestep nearly tells.
RACING_SHIFT: tuple[tuple[int, int], ...] = ((1, 96),)
# Standard errors below the k-th best at which a record is dropped however few are left.
RACING_CONFIDENCE = 2.5

# Random records scored beside the candidates, for the page's comparison.
CONTROL = 8

# Unlearning: the relative loss increase one query is solved for, in how many Newton steps, and the
# noise draws per timestep of the gradient of each. `python -m evaluation tune` chose them
# (evaluation/frozen.json).
RELATIVE_INCREASE = 1.0
NEWTON_STEPS = 5
DRAWS = 4

# "See it forget": relative loss increases shown side by side, the model as it is first.
FORGET_STRENGTHS: tuple[float, ...] = (0.0, 0.10, 0.25, 0.50, 1.0)
FORGET_OTHERS = 4

# Half width, in timesteps, of the triangle that the timestep slider weighs cells with.
SLIDER_WIDTH = 250.0


@dataclass(frozen=True)
class Recall:
    """Share of the exhaustive top 24 that default answers held, over some queries of one index."""

    share: float
    queries: int
    index_hash: str


# Of SHORTLIST, its sources and RACING above. None: not measured for them yet. The command
# `python -m evaluation shortlist` prints all of these lines as it measured them.
SHORTLIST_RECALL: Recall | None = Recall(
    0.952, 20, "86842444ab14b80b10fbebaeced1405be48afe2f9d4ae7099f51a63a9518875c"
)
