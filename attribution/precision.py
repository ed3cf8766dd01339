"""Numeric precision of the forwards that score: float32, unless probing finds a lower one as good.

Scores are differences of losses hundreds of times their size, so a precision that is good enough
for pictures may not be for them. A lower one is taken only where a few forwards of this very model
show it to be clearly faster and its differences to rank as those of float32. Weights, Δθ, gradients
and the base losses of an index are float32 always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from attribution.compare import spearman
from attribution.types import UserError

FASTER, ALIKE = 1.3, 0.99
# A first run this many times slower than float32's is not run again; the others this often.
HOPELESS, ROUNDS = 2.0, 4


@dataclass(frozen=True)
class Precision:
    """What layers compute in: autocast to a half type, or TF32; neither is float32."""

    name: str
    autocast: torch.dtype | None = None
    tf32: bool = False

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Inside the block layers compute in this precision; afterwards as they did before."""
        if self.autocast is not None:
            with torch.autocast(device.type, self.autocast):
                yield
        elif self.tf32:
            cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
            before = cuda.allow_tf32, cudnn.allow_tf32
            cuda.allow_tf32 = cudnn.allow_tf32 = True
            try:
                yield
            finally:
                cuda.allow_tf32, cudnn.allow_tf32 = before
        else:
            yield


FLOAT32 = Precision("float32")
TF32 = Precision("tf32", tf32=True)
BFLOAT16 = Precision("bfloat16", autocast=torch.bfloat16)
FLOAT16 = Precision("float16", autocast=torch.float16)
AUTO = "auto"
NAMES = (AUTO, *(p.name for p in (FLOAT32, TF32, BFLOAT16, FLOAT16)))


def named(name: str) -> Precision | None:
    """A precision by name, None for "auto": probe; UserError for another name."""
    if name not in NAMES:
        raise UserError(f"precision is one of {', '.join(NAMES)}")
    found = {p.name: p for p in (FLOAT32, TF32, BFLOAT16, FLOAT16)}
    return found.get(name)


def lower(device: torch.device) -> tuple[Precision, ...]:
    """What is worth probing on a device: nothing on a CPU that only emulates half types."""
    if device.type == "cuda":
        return TF32, BFLOAT16, FLOAT16
    emulates = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    return () if emulates else (BFLOAT16,)


@dataclass(frozen=True)
class Probe:
    """What probing found. tried: name → speed against float32 and, where that was clearly faster,
    Spearman's rho of its differences with float32's. seconds: what it cost.
    """

    chosen: Precision = FLOAT32
    tried: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """For result.json."""
        return {"name": self.chosen.name, "tried": self.tried, "seconds": self.seconds}


def choose(
    precisions: tuple[Precision, ...],
    few: Callable[[Precision], object],
    differences: Callable[[Precision], np.ndarray],
    clock: Callable[[], float] = time.perf_counter,
) -> Probe:
    """The fastest precision that is FASTER than float32 and ranks ALIKE; else float32.

    few: runs some forwards and waits for them. differences: score-like differences [n], of losses
    with changed weights less float32 losses without.
    """
    began = clock()
    speeds = _speeds(precisions, few, clock) if precisions else {}
    tried = {p.name: {"speed": round(speed, 2)} for p, speed in speeds.items()}
    chosen, exact = FLOAT32, None
    for p in sorted(speeds, key=lambda p: -speeds[p]):
        if speeds[p] < FASTER:
            break
        exact = differences(FLOAT32) if exact is None else exact
        rho = spearman(exact, differences(p))
        tried[p.name]["spearman"] = round(rho, 4)
        if rho >= ALIKE:
            chosen = p
            break
    return Probe(chosen, tried, round(clock() - began, 3))


def _speeds(
    precisions: tuple[Precision, ...],
    few: Callable[[Precision], object],
    clock: Callable[[], float],
) -> dict[Precision, float]:
    """Speed against float32. They take turns, so that what else the machine does slows all alike;
    the first run of each chooses kernels and takes memory.
    """

    def seconds(precision: Precision) -> float:
        began = clock()
        few(precision)
        return max(clock() - began, 1e-9)

    first = {p: seconds(p) for p in (FLOAT32, *precisions)}
    fit = [p for p in precisions if first[p] < HOPELESS * first[FLOAT32] + 0.05]
    runs = [{p: seconds(p) for p in (FLOAT32, *fit)} for _ in range(ROUNDS)]
    normal = min(run[FLOAT32] for run in runs)
    best = {p: min(run[p] for run in runs) if p in fit else first[p] for p in precisions}
    return {p: normal / best[p] for p in precisions}
