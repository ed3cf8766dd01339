"""Figures 12 to 17: a metric against K beside the random curve, and what each removal equals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.counterfactual import curves
from evaluation.counterfactual.compare import HEADS, SCALE, Block
from evaluation.counterfactual.lines import RANDOM, Lines
from evaluation.counterfactual.tables import blocks
from evaluation.statistics import mean_error

ASIDE = 1.012  # between two methods on the logarithmic axis


def plot(
    lines: Lines, labels: Sequence[str], metric: str, path: Path, apart: Sequence[str] = ()
) -> bool:
    """Write one figure, of the Ks of `blocks`; False where nothing is measured yet."""
    found = list(blocks(lines, labels, apart))
    if not found or np.isnan(found[0].mean(next(iter(found[0].values)), metric)):
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(
        2, 1, figsize=(10, 8), layout="constrained", height_ratios=(3, 2)
    )
    _against_k(above, lines, found, metric)
    _equivalents(below, lines, found, metric)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
    return True


def _against_k(axes: Any, lines: Lines, found: Sequence[Block], metric: str) -> None:
    """Every method's mean and standard error, side by side at each K;
    the random sweep goes on past the methods' Ks."""
    labels = list(dict.fromkeys(label for b in found for label in b.values if label != RANDOM))
    for number, (label, colour) in enumerate(zip(labels, _colours(len(labels)), strict=True)):
        aside = ASIDE ** (number - (len(labels) - 1) / 2)
        mine = [b for b in found if label in b.values]
        points = [mean_error(SCALE[metric] * b.values[label][metric]) for b in mine]
        means, errors = zip(*points, strict=True)
        ks = [b.k * aside for b in mine]
        axes.errorbar(ks, means, errors, label=label, color=colour, marker=".", capsize=2)
    most = max((b.queries for b in found), key=len)
    asked = {b.k: b.queries for b in found}  # the same pictures as the methods at that K
    sweep = [(k, lines.random_outcomes(k, asked.get(k, most))) for k in lines.random_sizes]
    if sweep:
        points = [
            mean_error([SCALE[metric] * getattr(o, metric) for o in some]) for _, some in sweep
        ]
        means, errors = zip(*points, strict=True)
        style = {"color": "black", "linestyle": "--", "marker": ".", "capsize": 2}
        axes.errorbar([k for k, _ in sweep], means, errors, label=RANDOM, **style)
    axes.set(xscale="log", xlabel="records removed (K)", ylabel=HEADS[metric])
    ks = sorted({*(b.k for b in found), *(k for k, _ in sweep)})
    axes.set_xticks(ks, [str(k) for k in ks], rotation=45)
    axes.minorticks_off()
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _equivalents(axes: Any, lines: Lines, found: Sequence[Block], metric: str) -> None:
    """Bars: how many random removals each method's K equals."""
    labels = list(dict.fromkeys(label for b in found for label in b.values if label != RANDOM))
    if len(lines.random_sizes) < 2:
        axes.set_axis_off()
        return
    width = 0.8 / len(found)
    for number, one in enumerate(found):
        ks, curve, sign = curves.random_curve(lines, one.queries, metric)
        mine = [label for label in labels if label in one.values]
        equal = [curves.equivalent(ks, curve, sign * one.mean(label, metric)) for label in mine]
        places = [labels.index(label) + number * width for label in mine]
        heights, beyond = zip(*equal, strict=True) if equal else ((), ())
        bars = axes.bar(places, heights, width, label=f"K = {one.k}")
        axes.bar_label(bars, beyond, fontsize="small")  # "<", ">": past the curve's end
    middles = np.arange(len(labels)) + width * (len(found) - 1) / 2
    axes.set_xticks(middles, labels, rotation=30, ha="right")
    axes.set(ylabel="equals removing at random")
    axes.legend(fontsize="small")


def _colours(n: int) -> list[Any]:
    from matplotlib import colormaps

    chosen = colormaps["tab20"]
    return [chosen(number % 20) for number in range(n)]
