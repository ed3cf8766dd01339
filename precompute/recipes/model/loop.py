"""A resumable training loop: step function in, checkpoints, loss curve and a record of the run
out."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

StepLoss = Callable[[int], dict[str, torch.Tensor]]


class Ema:
    """Exponential moving average of a module's parameters, warmed up as min(decay, (1 + s) / (10 +
    s))."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves the average towards the module after optimiser step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.shadow[name].lerp_(value.to(self.shadow[name].dtype), 1 - decay)


def trapezoid(step: int, *, warmup: int, total: int, decay: int) -> float:
    """Learning-rate factor in [0, 1]: linear warm-up, plateau, linear decay over the last `decay`
    steps."""
    up = min(1.0, (step + 1) / max(1, warmup))
    down = min(1.0, (total - step) / max(1, decay))
    return max(0.0, min(up, down))


class Fit:
    """A network in training, in memory: optimiser, average, and how many steps are done."""

    def __init__(self, module: nn.Module, config: Any, *, ema_decay: float = 0.0) -> None:
        self.module, self.config = module, config
        self.optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=config.learning_rate,
            weight_decay=getattr(config, "weight_decay", 0.0),
            betas=(0.9, 0.99),
            fused=True,
        )
        self.ema = Ema(module, ema_decay) if ema_decay else None
        self.step = 0

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights to ship: the average when there is one."""
        return self.ema.shadow if self.ema else self.module.state_dict()

    def update(self, loss_of: StepLoss, factor: float) -> dict[str, float]:
        """One optimiser step at `factor` of the learning rate; what `loss_of(step)` said, as
        numbers."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        parts = loss_of(self.step)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.module, self.step)
        self.step += 1
        return {k: float(v.detach()) for k, v in parts.items()}


class Run(Fit):
    """One network's training in a folder: `checkpoint.pt`, `losses.csv`, `training.json`; killed
    runs resume."""

    def __init__(
        self, folder: Path, module: nn.Module, config: Any, *, ema_decay: float = 0.0
    ) -> None:
        super().__init__(module, config, ema_decay=ema_decay)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.seconds = 0.0
        self._resume()

    def fit(self, loss_of: StepLoss, schedule: Callable[[int], float], *, save_every: int) -> None:
        """Runs steps up to config.steps; `loss_of(step)` returns {'loss': scalar, ...} for the
        log."""
        bar = tqdm(total=self.config.steps, initial=self.step, desc=self.folder.name, mininterval=5)
        while self.step < self.config.steps:
            started = time.perf_counter()
            parts = self.update(loss_of, schedule(self.step))
            self.seconds += time.perf_counter() - started
            self._log(parts, bar)
            if self.step % save_every == 0 or self.step == self.config.steps:
                self.save()
        bar.close()
        self._describe()

    def save(self) -> None:
        """Writes the checkpoint beside the old one, then renames: a kill leaves one or the
        other."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadow if self.ema else {},
        }
        part = self.folder / "checkpoint.pt.part"
        torch.save(state, part)
        os.replace(part, self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.shadow = state["ema"]

    def _log(self, parts: dict[str, float], bar: tqdm) -> None:
        bar.update(1)
        bar.set_postfix({k: f"{v:.4f}" for k, v in parts.items()}, refresh=False)
        with (self.folder / "losses.csv").open("a") as f:
            f.write(",".join([str(self.step)] + [f"{k}={v:.6f}" for k, v in parts.items()]) + "\n")

    def _describe(self) -> None:
        record = {
            "command": " ".join(["python", "-m", "precompute", *sys.argv[1:]]),
            "config": asdict(self.config),
            "steps": self.step,
            "seconds": round(self.seconds),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        (self.folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
