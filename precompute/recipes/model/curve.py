"""The loss curve of one training run, from its losses.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_losses(path: Path) -> dict[int, float]:
    """Optimiser step -> loss; a resumed run's repeated steps overwrite those it lost."""
    losses = {}
    for line in path.read_text().splitlines():
        step, *parts = line.split(",")
        losses[int(step)] = float(dict(p.split("=") for p in parts)["loss"])
    return losses


def write_curve(path: Path, out: Path, points: int = 200) -> None:
    """Draws the losses of `path`, averaged over equal spans of steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    losses = read_losses(path)
    steps = np.array(sorted(losses))
    spans = np.array_split(steps, min(points, len(steps)))
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    means = [np.mean([losses[s] for s in span]) for span in spans]
    axes.plot([span.mean() for span in spans], means)
    axes.set(xlabel="optimiser step", ylabel="training loss", yscale="log", title=path.parent.name)
    figure.savefig(out, dpi=100, metadata={"Software": None})
    plt.close(figure)
