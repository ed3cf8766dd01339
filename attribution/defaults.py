"""The numbers a default query runs with; `python -m evaluation` prints the measurements behind."""

from __future__ import annotations

METHOD = "abu"
TOP_K = 24

# Sampling of a picture, where the model has no advice of its own (generation.json beside it).
STEPS = 50
GUIDANCE = 3.0

# Candidates each query rescores unless `exhaustive` is asked for; None: every training record.
SHORTLIST: int | None = 512

# Unlearning: the relative loss increase one query is solved for, and what it is measured on.
RELATIVE_INCREASE = 0.10
DRAWS = 4

# "See it forget": relative loss increases shown side by side, the model as it is first.
FORGET_STRENGTHS: tuple[float, ...] = (0.0, 0.05, 0.10, 0.20, 0.40)
FORGET_OTHERS = 4

# Half width, in timesteps, of the triangle that the timestep slider weighs cells with.
SLIDER_WIDTH = 250.0
