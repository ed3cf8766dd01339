"""Line search: the step that raises a loss by a wanted amount, in few evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

TOLERANCE = 0.02
EVALUATIONS = 12
LARGEST_GROWTH = 8.0
# Around a peak that is too low: no closer than this factor.
NARROW = 1.5


@dataclass(frozen=True)
class Step:
    """A step, the increase it gives, and whether that is the wanted one within tolerance."""

    step: float
    increase: float
    reached: bool


def solve_step(
    increase: Callable[[float], float],
    wanted: float,
    first: float,
    *,
    tolerance: float = TOLERANCE,
    evaluations: int = EVALUATIONS,
) -> Step:
    """`step_search` over a function: increase(s) is the loss gained by the step s > 0."""
    search = step_search(wanted, first, tolerance=tolerance, evaluations=evaluations)
    step = next(search)
    while True:
        try:
            step = search.send(increase(step))
        except StopIteration as stop:
            found: Step = stop.value
            return found


def step_search(
    wanted: float,
    first: float,
    *,
    tolerance: float = TOLERANCE,
    evaluations: int = EVALUATIONS,
) -> Generator[float, float, Step]:
    """Yields steps to try, is sent the increase of each, returns the Step for `wanted` > 0.

    Starts at `first` (from the slope), widens until the wanted value is bracketed, then
    interpolates inside. A loss that is not finite counts as too much. Where the wanted increase is
    not found within `tolerance` of it, the step with the largest increase seen below it (`reached`
    False), 0 if there was none.
    """
    seen = {0.0: 0.0}
    step: float | None = first if math.isfinite(first) and first > 0 else 1.0
    for _ in range(evaluations):
        if step is None:
            break
        value = yield step
        if abs(value - wanted) <= tolerance * wanted:
            return Step(step, value, True)
        seen[step] = value if math.isfinite(value) else math.inf
        above = [s for s, v in seen.items() if v > wanted]
        step = _between(seen, min(above), wanted) if above else _beyond(seen, wanted)
    best = max((s for s, v in seen.items() if v < wanted), key=seen.__getitem__)
    return Step(best, seen[best], False)


def _between(seen: Mapping[float, float], b: float, wanted: float) -> float:
    """Inside the bracket that ends at `b`, the smallest step known to be too much."""
    a = max(s for s in seen if s < b)
    f_a, f_b = seen[a], seen[b]
    if math.isinf(f_b):
        return (a + b) / 2
    if f_a > 0:
        # a power law through both ends: straight for a linear loss and for a quadratic one
        power = math.log(b / a) / math.log(f_b / f_a)
        share = (a * (wanted / f_a) ** power - a) / (b - a)
    else:
        share = (wanted - f_a) / (f_b - f_a)
    # off the ends, so that the bracket always shrinks
    return a + min(max(share, 0.05), 0.95) * (b - a)


def _beyond(seen: Mapping[float, float], wanted: float) -> float | None:
    """Past every step seen, or around a peak that is too low; None when that is narrowed down."""
    best = max(seen, key=seen.__getitem__)
    left, right = [s for s in seen if s < best], [s for s in seen if s > best]
    if not right:
        return best * min(max(1.1 * wanted / seen[best], 1.3), LARGEST_GROWTH)
    if not left:
        return min(right) / LARGEST_GROWTH
    down = best / max(left) if max(left) > 0 else LARGEST_GROWTH**2
    up = min(right) / best
    if max(down, up) < NARROW:
        return None
    return best * math.sqrt(up) if up >= down else best / math.sqrt(down)
