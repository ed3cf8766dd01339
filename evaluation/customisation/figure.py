"""Fig. 6 and 9 from the lines of `python -m evaluation customised`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.customisation.methods import MAIN
from evaluation.customisation.tables import METRICS, Answers, is_ours
from evaluation.statistics import mean_error
from precompute.recipes.abc.plan import KINDS

FEWEST = 3  # models of a kind, for a form of AbU to be drawn
MARKERS = "os^D"  # one for every ten colours


def plot(answers: Answers, path: Path) -> None:
    """Style models against object models with standard errors: methods, then variants of AbU.
    Nothing where only one kind of models has answers."""
    both = [t for t in answers.configurations if all(len(answers.values(k, t)) for k in KINDS)]
    whole = [t for t in both if not any(answers.few(kind, t) for kind in KINDS)]
    methods = [t for t in whole if t in MAIN or not is_ours(t)]
    panels = {"methods": methods, "forms of AbU, on the pictures of all": _forms(answers, both)}
    panels = {title: texts for title, texts in panels.items() if texts}
    if not both:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (11, 5 * len(panels))
    figure, axes = plt.subplots(
        len(panels), len(METRICS), figsize=size, squeeze=False, layout="constrained"
    )
    for row, (title, texts) in zip(axes, panels.items(), strict=True):
        shown = answers.common(texts)
        for column, metric in enumerate(METRICS):
            _panel(row[column], shown, texts, column)
            row[column].set(title=f"{title}: {metric}", xlim=(0, 1.02), ylim=(0, None))
            row[column].set(xlabel=f"{KINDS[0]} models", ylabel=f"{KINDS[1]} models")
        row[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _forms(answers: Answers, both: Sequence[str]) -> list[str]:
    """Forms of AbU that are compared: those of enough pictures."""
    ours = [text for text in both if is_ours(text)]
    return [t for t in ours if min(len(answers.values(k, t)) for k in KINDS) >= FEWEST]


def _panel(axes: Any, answers: Answers, texts: Sequence[str], column: int) -> None:
    for number, text in enumerate(texts):
        (x, dx), (y, dy) = (mean_error(answers.values(kind, text)[:, column]) for kind in KINDS)
        errors = {"xerr": np.nan_to_num(dx), "yerr": np.nan_to_num(dy)}
        look = {"color": f"C{number % 10}", "marker": MARKERS[number // 10 % len(MARKERS)]}
        axes.errorbar(x, y, **errors, **look, label=text, capsize=2, linestyle="")
