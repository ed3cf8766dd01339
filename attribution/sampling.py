"""How pictures are drawn: the settings a model recommends, and a picture with its progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attribution import defaults, layout, validate
from attribution.denoiser import Denoiser
from attribution.integrity import read_json
from attribution.types import Progress, Query

STAGE = "generate"
SCHEDULER = "DDIMScheduler"


def recommended(model: str | Path) -> dict[str, Any]:
    """`generation.json` beside the weights of a model folder; empty without one."""
    path = Path(model) / layout.GENERATION
    return read_json(path) if path.is_file() else {}


def settings(
    advice: dict[str, Any], denoiser: Denoiser, steps: int | None, guidance: float | None
) -> tuple[int, float]:
    """Steps and guidance scale asked for, else what the model recommends, else ours."""
    steps = steps if steps is not None else advice.get("steps", defaults.STEPS)
    guidance = guidance if guidance is not None else advice.get("guidance", defaults.GUIDANCE)
    return validate.steps(steps, denoiser.n_train_timesteps), validate.guidance(guidance)


def generate(
    denoiser: Denoiser, prompt: str, seed: int, steps: int, guidance: float
) -> Iterator[Progress | Query]:
    """One Progress for each step, then the Query with the decoded picture."""
    began = time.perf_counter()
    for item in denoiser.sample([prompt], [seed], steps=steps, guidance=guidance):
        if isinstance(item, list):
            yield Query(prompt, item[0], seed, steps, guidance, SCHEDULER)
        else:
            done, total = item
            seconds = time.perf_counter() - began
            yield Progress(STAGE, done, total, seconds, seconds / done * (total - done))
