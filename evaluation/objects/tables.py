"""What the lines of `python -m evaluation localisation` say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.data import HELD_OUT
from evaluation.objects.pooled import COMPARED_TIMESTEPS
from evaluation.objects.two_objects import PARTS
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error

TOP = 24
TARGET = 0.8
JUDGED = ("abu-ekfac", "abu")
HEADS: tuple[str, ...] = (
    *("method", "chosen object", "of the whole picture", "gain", "the other object", "chance"),
    *("drawn alone", "lists in common", "Spearman of the flip", "seconds an answer"),
)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Each method's share of the chosen object, against the whole picture and against chance."""
    lines = [unit for unit in units if "shares" in unit]
    names = list(dict.fromkeys(line["method"] for line in lines))
    table = [HEADS]
    for name in names:
        own = [unit for unit in units if unit.get("method") == name]
        table.append(_row(name, own))
        if worded := [unit for unit in own if "worded" in unit]:
            table.append(_worded_row(name, worded))
    figures = []
    if judged := [name for name in JUDGED if name in names]:
        best = max(judged, key=lambda name: _means(lines, name)[0])
        share, error = _means(lines, best)
        value = f"{share:.2f} ± {error:.2f} ({best}, the best of {', '.join(judged)})"
        name = f"share of the top {TOP} that show the chosen object"
        figures.append(Figure(name, value, f">= {TARGET}", share >= TARGET))
        common = mean_error([line["common"] for line in lines if line["method"] == best])[0]
        figures.append(Figure("share of A's list that is in B's", f"{common:.2f} ({best})"))
        figures += _in_words([unit for unit in units if unit.get("method") == best], best)
        figures += _ceiling([unit for unit in units if unit.get("method") == best], best)
    figures += _identities([unit for unit in units if "identities" in unit])
    return Summary(tuple(figures), tuple(table) if names else (), (_note(head, units, lines),))


def _ceiling(units: Sequence[dict[str, Any]], best: str) -> list[Figure]:
    """The share where nothing but the object is there to be found; nothing without such lines."""
    shares = _alone(units)
    if not shares:
        return []
    share, error = mean_error(shares)
    name = f"share of the top {TOP} where the object is drawn alone: the method's ceiling"
    return [Figure(name, f"{share:.2f} ± {error:.2f} ({best}, {len(shares)} pictures)")]


IDENTITIES = {
    "everything": "a region of everything less the whole picture: greatest difference of a score",
    "union": "boxes less the mask of the same pixels: greatest difference of a score",
    "flip": "the flipped picture's mask less the flipped mask: greatest difference of a cell",
}


def _identities(units: Sequence[dict[str, Any]]) -> list[Figure]:
    """What has to be exactly 0, over all methods asked."""
    if not units:
        return []
    worst = {what: max(unit["identities"][what] for unit in units) for what in IDENTITIES}
    return [
        Figure(name, f"{worst[what]:g} ({len(units)} methods)", "0", worst[what] == 0)
        for what, name in IDENTITIES.items()
    ]


def _in_words(units: Sequence[dict[str, Any]], best: str) -> list[Figure]:
    """The shares of the chosen and the other object by words; nothing without such lines."""
    lines = [unit for unit in units if "worded" in unit]
    if not lines:
        return []
    shares = [mean_error(_worded(lines, other)) for other in (0, 1)]
    (own, own_error), (rest, rest_error) = shares
    common = mean_error([line["common"] for line in lines])[0]
    value = f"{own:.2f} ± {own_error:.2f}, of the other one {rest:.2f} ± {rest_error:.2f}"
    name = "in words of its own: share of the chosen object"
    return [Figure(name, f"{value}; lists in common {common:.2f} ({best})")]


def _worded(lines: Sequence[dict[str, Any]], other: int) -> list[float]:
    """Shares of the chosen object (0) or of the other (1), by words, the mean of both regions."""
    return [
        float(np.mean([line["worded"][PARTS[i]][(i + other) % 2] for i in (0, 1)]))
        for line in lines
    ]


def _alone(units: Sequence[dict[str, Any]]) -> list[float]:
    """Shares of the objects drawn alone."""
    return [share for unit in units for share in unit.get("alone", ()) if share is not None]


def _means(lines: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """Mean of the chosen object's share, and its standard error over pictures."""
    return mean_error([_chosen(line) for line in lines if line["method"] == name])


def _chosen(line: dict[str, Any]) -> float:
    """The chosen object's share, the mean of both regions."""
    return float(np.mean([line["shares"][PARTS[i]][i] for i in (0, 1)]))


def _row(name: str, units: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    lines = [unit for unit in units if "shares" in unit]
    chosen = [_chosen(line) for line in lines]
    whole = [np.mean(line["shares"]["whole"]) for line in lines]
    other = [np.mean([line["shares"][PARTS[i]][1 - i] for i in (0, 1)]) for line in lines]
    chance = [np.mean(line["chance"]) for line in lines]
    gain = np.array(chosen) - np.array(whole)
    flips = [unit["spearman"] for unit in units if "spearman" in unit]
    columns = (chosen, whole, gain, other, chance, _alone(units))
    columns += ([line["common"] for line in lines], flips)
    seconds = np.mean([line["seconds"] / len(PARTS) for line in lines])
    return (name, *(_cell(values) for values in columns), f"{seconds:.1f}")


def _worded_row(name: str, lines: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The row of answers by the objects' own words; what these do not change stays empty."""
    chosen, other = _worded(lines, 0), _worded(lines, 1)
    common = [line["common"] for line in lines]
    cells = ("", "", _cell(other), "", "", _cell(common), "", "")
    return (f"{name}, in words", _cell(chosen), *cells)


def _cell(values: Sequence[float] | np.ndarray) -> str:
    if not len(values):
        return ""
    mean, error = mean_error(values)
    return f"{mean:.3f}" if np.isnan(error) else f"{mean:.3f} ± {error:.3f}"


def _note(
    head: dict[str, Any], units: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]
) -> str:
    settings = head["settings"]
    named = next((unit for unit in units if unit["unit"] == "classifier"), None)
    whose = "generated picture shows both by the classifier"
    if settings["pictures"] == HELD_OUT:
        whose = "picture is a held-out collage, with its parts' own boxes"
    scored = "all of them scored at every one of these timesteps: " + ", ".join(
        str(t) for t in settings["timesteps"] or ()
    )
    if not settings["timesteps"]:
        scored = "raced by unlearning methods as by default, else all of them scored"
    words = [
        f"{len({line['prompt'] for line in lines})} prompts of two objects whose {whose}; a "
        f"pool of {settings['pool']:,} training records, {scored}; "
        "mean of both regions ± standard error over pictures.",
    ]
    if named is not None:
        words.append(
            f"The classifier knows {', '.join(named['categories'])}, and names {named['right']} of "
            f"{named['total']} held-out drawings and parts of held-out collages right."
        )
    if any("alone" in unit for unit in units):
        words.append(
            "Drawn alone: the share for a picture of the same drawing's own caption, asked about "
            "as a whole, where the classifier names it."
        )
    if any("worded" in unit for unit in units):
        words.append("In words: each region by its object's noun in the place of the prompt.")
    words.append(
        "Lists in common: the share of region A's top list that is in region B's. Flip: the "
        "mirrored picture with the mirrored region, against the picture, over the pool"
        + ("." if settings["timesteps"] else f", at {COMPARED_TIMESTEPS} timesteps.")
    )
    return " ".join(words)
