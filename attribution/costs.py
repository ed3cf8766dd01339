"""What a method costs beside its answers: bytes kept for each training record, precomputing.

Bytes are read off the index's own arrays; what it does not hold but a method makes when it is first
asked (pixel rows) is counted apart, as memory. Seconds come from `timings.json`, which making an
index leaves beside it: {step: {"seconds", "records"}}, summed over all runs on any machine; an
index made without it has unknown costs, never zero.

>>> cost(index, "similarity", ("clip", "rows:clip")).parts          # {"clip rows": 512}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from attribution import layout
from attribution.index import Index
from attribution.integrity import read_json
from attribution.methods.candidates import candidate_rows
from attribution.methods.needs import curvature_named, curvature_path
from attribution.pixels import NAME as PIXEL
from attribution.pixels import pixel_bytes

UNLEARNING = "unlearning"


@dataclass(frozen=True)
class Cost:
    """parts: what is kept for each training record → bytes. seconds: step of making an index →
    seconds per record, NaN where nobody wrote them down. memory: bytes a record of rows that are in
    no file: made from the pictures when first asked for, and held in memory from then on.
    """

    parts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int = 0

    @property
    def bytes_per_record(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def seconds_per_record(self) -> float:
        """All steps together; NaN when one of them is unknown."""
        return float(sum(self.seconds.values()))


def cost(index: Index, kind: str, needs: Sequence[str]) -> Cost:
    """Cost of a method of this kind with these needs (`Method.needs`) in an index.

    An unlearning method reads every candidate's latents and base losses, and the rows that its
    shortlist is made from; its curvature is a step too.
    """
    names = _rows(index, kind, needs)
    parts = {f"{name} rows": index.rows(name, [0]).nbytes for name in names}
    steps = [_step_of_rows(index, name) for name in names]
    if kind == UNLEARNING:
        latents, losses = index.latents([0]), index.base_loss[:1]
        flips = losses.shape[2]
        parts |= {"latents": 2 * flips * latents.numel(), "base losses": losses.nbytes}
        steps += ["latents", "losses", *_curvatures(index, needs)]
    timings = _timings(index)
    seconds = {step: timings.get(step, math.nan) for step in steps if step}
    made = f"made:{PIXEL}" in needs and not index.has_rows(PIXEL)
    return Cost(parts, seconds, pixel_bytes(len(index.train_rows)) if made else 0)


def _rows(index: Index, kind: str, needs: Sequence[str]) -> list[str]:
    names = [need.partition(":")[2] for need in needs if need.startswith(("rows:", "made:"))]
    names += candidate_rows(index) if kind == UNLEARNING else []
    return list(dict.fromkeys(name for name in names if index.has_rows(name)))


def _step_of_rows(index: Index, name: str) -> str | None:
    """The step that made rows: an extra one, or a core one by the first shard's done.json."""
    file = f"{layout.ROWS}/{layout.rows_name(name)}"
    if step := index.extras.step_of(file):
        return step
    done = index.path / layout.SHARDS / layout.shard_name(0) / layout.DONE
    steps = read_json(done)["steps"]
    return next((step for step, entry in steps.items() if file in entry["files"]), None)


def _curvatures(index: Index, needed: Sequence[str]) -> list[str]:
    """The core Fisher, or the extra step that made that of other weights or another objective."""
    steps = []
    for kind, _, name in (need.partition(":") for need in needed):
        if kind == "curvature":
            path = curvature_path(index, *curvature_named(name))
            extra = path is not None and path.parent.name == layout.EXTRA_FILES
            steps.append(path.stem if path is not None and extra else "fisher")
    return steps


def _timings(index: Index) -> dict[str, float]:
    """step → seconds per record."""
    path = index.path / layout.TIMINGS
    table = read_json(path) if path.is_file() else {}
    return {step: t["seconds"] / max(int(t["records"]), 1) for step, t in table.items()}
