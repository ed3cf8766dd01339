"""A clock inside the UNet: how long its forwards take, apart from all that surrounds them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class UnetClock:
    """Seconds, calls and samples of UNet forwards: of scoring (inference mode) and all others."""

    seconds: dict[str, float] = field(default_factory=lambda: {"scoring": 0.0, "other": 0.0})
    calls: dict[str, int] = field(default_factory=lambda: {"scoring": 0, "other": 0})
    samples: dict[str, int] = field(default_factory=lambda: {"scoring": 0, "other": 0})
    began: float = 0.0

    def _before(self, module: Any, arguments: tuple[Any, ...]) -> None:
        _wait()
        self.began = time.perf_counter()

    def _after(self, module: Any, arguments: tuple[Any, ...], output: Any) -> None:
        _wait()
        # only scoring runs in inference mode: sampling and the line search use no_grad
        kind = "scoring" if torch.is_inference_mode_enabled() else "other"
        self.seconds[kind] += time.perf_counter() - self.began
        self.calls[kind] += 1
        self.samples[kind] += len(arguments[0])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def clocked(unet: torch.nn.Module) -> Iterator[UnetClock]:
    """A clock that runs inside the block."""
    clock = UnetClock()
    hooks = [
        unet.register_forward_pre_hook(clock._before),
        unet.register_forward_hook(clock._after),
    ]
    try:
        yield clock
    finally:
        for hook in hooks:
            hook.remove()
