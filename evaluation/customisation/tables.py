"""What the lines of `python -m evaluation customised` say: a table, a CSV, and Fig. 6 and 9.

Everything follows from the lines alone. A model's value is the mean over its pictures; means,
intervals and standard errors are over models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import results
from evaluation.customisation.methods import MAIN, Configuration
from evaluation.results import Figure, Summary
from evaluation.statistics import bootstrap
from precompute.recipes.abc.plan import KINDS
from precompute.recipes.abc.retrieval import average_precision, recall

VERB = "customised"
LIMIT = 10
METRICS = (f"recall@{LIMIT}", "mAP")
# What differences are taken from.
REFERENCE = "abu"
HEADS: tuple[str, ...] = (
    *("exemplars", "configuration", "models", "pictures", *METRICS),
    *(f"mAP less that of {REFERENCE}", "seconds"),
)
# A variant is asked about a few of the pictures; what it varies, about them all.
VARIANT_HEADS = (*HEADS[:6], "mAP of the plain method on these", "mAP less that", "seconds")
COLUMNS = (
    *("model", "kind", "picture", "prompts", "prompt", "configuration", "rows", "exemplars"),
    *("among", METRICS[0], "average precision", "ranks", "reached", "seconds"),
)
Line = Mapping[str, Any]


def metrics(line: Line) -> tuple[float, float]:
    """(recall@10, average precision) of an answer."""
    ranks = np.array([line["ranks"]])
    return float(recall(ranks, LIMIT)[0]), float(average_precision(ranks)[0])


@dataclass(frozen=True)
class Answers:
    """The answers among a run's lines."""

    units: Sequence[Line]

    @cached_property
    def lines(self) -> list[Line]:
        """One for each picture and configuration."""
        return [unit for unit in self.units if "ranks" in unit]

    @cached_property
    def configurations(self) -> list[str]:
        """As written, in the order of their first line."""
        return list(dict.fromkeys(str(line["configuration"]) for line in self.lines))

    @cached_property
    def table(self) -> dict[tuple[str, str], dict[tuple[str, int], tuple[float, float]]]:
        """(kind, configuration) → (model, picture) → metrics."""
        found: dict[tuple[str, str], dict[tuple[str, int], tuple[float, float]]] = {}
        for line in self.lines:
            group = found.setdefault((line["kind"], line["configuration"]), {})
            group[line["model"], line["query"]] = metrics(line)
        return found

    def values(self, kind: str, text: str) -> np.ndarray:
        """Metrics by model, float64 [models, 2]; empty without any."""
        return _by_model(self.table.get((kind, text), {}))

    def differences(self, kind: str, text: str, other: str) -> np.ndarray:
        """Metrics of one configuration less another's on the same pictures, [models, 2]."""
        ours, theirs = (self.table.get((kind, name), {}) for name in (text, other))
        both = {key: tuple(np.subtract(ours[key], theirs[key])) for key in ours if key in theirs}
        return _by_model(both)

    def common(self, texts: Sequence[str]) -> Answers:
        """The answers of these configurations about the pictures that all of them have."""
        own = [
            {(line["model"], line["query"]) for line in self.lines if line["configuration"] == text}
            for text in texts
        ]
        both = set.intersection(*own)
        kept = [x for x in self.lines if (x["model"], x["query"]) in both]
        return Answers([line for line in kept if line["configuration"] in texts])

    def few(self, kind: str, text: str) -> bool:
        """Whether it was asked about some of the pictures only that others were asked about."""
        most = max(len(own) for (other, _), own in self.table.items() if other == kind)
        return len(self.table.get((kind, text), {})) < most

    def of(self, kind: str, text: str) -> list[Line]:
        """The lines themselves."""
        wanted = (kind, text)
        return [line for line in self.lines if (line["kind"], line["configuration"]) == wanted]


def _by_model(found: Mapping[tuple[str, int], Sequence[float]]) -> np.ndarray:
    models: dict[str, list[Sequence[float]]] = {}
    for (model, _), values in found.items():
        models.setdefault(model, []).append(values)
    return np.array([np.mean(some, axis=0) for some in models.values()]).reshape(-1, 2)


def summary(head: Line, units: Sequence[Line]) -> Summary:
    """Who finds the exemplars, on both kinds of models."""
    answers = Answers(units)
    table: list[tuple[str, ...]] = [HEADS]
    variants: list[tuple[str, ...]] = [VARIANT_HEADS]
    for kind in KINDS:
        texts = [text for text in answers.configurations if len(answers.values(kind, text))]
        for text in sorted(texts, key=_order(answers, kind)):
            if answers.few(kind, text):
                variants.append(_variant(answers, kind, text))
            else:
                table.append(_row(answers, kind, text))
    figures = [f for kind in KINDS if (f := _figure(head, answers, kind)) is not None]
    tables = [tuple(rows) if len(rows) > 1 else () for rows in (table, variants)]
    more = (tables[1],) if tables[1] else ()
    return Summary(tuple(figures), tables[0], tuple(_notes(head, units, answers)), more)


def _order(answers: Answers, kind: str) -> Any:
    return lambda text: -float(answers.values(kind, text)[:, 1].mean())


def _row(answers: Answers, kind: str, text: str) -> tuple[str, ...]:
    less = answers.differences(kind, text, REFERENCE)[:, 1]
    against = _mean(less, sign="+") if text != REFERENCE and len(less) else ""
    return (*_start(answers, kind, text), against, _seconds(answers, kind, text))


def _start(answers: Answers, kind: str, text: str) -> tuple[str, ...]:
    values, lines = answers.values(kind, text), answers.of(kind, text)
    cells = [_mean(values[:, column]) for column in range(len(METRICS))]
    return kind, text, str(len(values)), str(len(lines)), *cells


def _seconds(answers: Answers, kind: str, text: str) -> str:
    return f"{np.mean([line['seconds'] for line in answers.of(kind, text)]):.1f}"


def _variant(answers: Answers, kind: str, text: str) -> tuple[str, ...]:
    """A row of the variants: beside the method as the product has it, on the same pictures."""
    parent = Configuration.parse(text).arm.name
    parent = REFERENCE if text == parent else parent
    less = answers.differences(kind, text, parent)[:, 1]
    beside = ["", ""]
    if len(less):
        beside = [f"{answers.values(kind, text)[:, 1].mean() - less.mean():.3f}", _mean(less, "+")]
    return (*_start(answers, kind, text), *beside, _seconds(answers, kind, text))


def _mean(values: np.ndarray, sign: str = "") -> str:
    """The mean with its bootstrap interval, where there are enough values for one."""
    low, high = bootstrap(lambda x: float(x.mean()), values)
    interval = "" if np.isnan(low) else f" ({low:{sign}.3f} to {high:{sign}.3f})"
    return f"{values.mean():{sign}.3f}{interval}"


def _figure(head: Line, answers: Answers, kind: str) -> Figure | None:
    """Ours and the best other plain method, by mAP."""
    plain = [text for text in answers.configurations if text in MAIN or not is_ours(text)]
    plain = [text for text in plain if (kind, text) in answers.table]
    there = {t: answers.values(kind, t)[:, 1] for t in plain if not answers.few(kind, t)}
    ours = [text for text in MAIN if text in there]
    others = sorted((text for text in there if text not in MAIN), key=lambda t: -there[t].mean())
    if not ours:
        return None
    said = [f"{text} {_mean(there[text])}" for text in ours]
    said += [f"best other {text} {_mean(there[text])}" for text in others[:1]]
    among = head["settings"]["distractors"]
    name = f"customised models, {kind}: mAP of the exemplars among {among} others"
    name += " (tuning models)" * bool(head["settings"].get("tuning"))
    return Figure(name, ", ".join(said))


def is_ours(text: str) -> bool:
    """Whether it is AbU in some form."""
    return text.startswith("abu")


def _notes(head: Line, units: Sequence[Line], answers: Answers) -> list[str]:
    settings = head["settings"]
    models = [unit for unit in units if unit["unit"].startswith("model ")]
    notes = []
    for kind in KINDS:
        losses = np.array([m["loss"] for m in models if m["kind"] == kind])
        if len(losses):
            before, after = losses.mean(0)
            notes.append(
                f"{len(losses)} {kind} models; loss of the exemplars {before:.3f} → {after:.3f}."
            )
    survivors = settings["survivors"]
    raced = f", the best {survivors} after the first" if survivors else ""
    notes.append(
        f"Exemplars among {settings['distractors']} training records that are no kin of theirs; "
        f"image and flip, timesteps {', '.join(map(str, settings['timesteps']))}{raced}. Losses of "
        "the customised model, the base model's curvature. Means over models (of the mean over a "
        "model's pictures) with bootstrap 95 % intervals; differences on the same pictures. "
        "`/no-v`: neither prompt nor exemplars' captions name V*; `/index-rows`: gradient rows of "
        "the base model, else of the customised one. A model's first picture and its third are of "
        "V* mixed with something else, the second of V* alone. Variants, in a table of their own, "
        "are asked about the first picture of each model; their plain method (of abu-sgd and "
        f"abu-full {REFERENCE}) was asked about all."
    )
    lacking: dict[str, str] = next((unit["why"] for unit in units if unit["unit"] == "lacking"), {})
    there = set(answers.configurations)
    notes += [f"Not run: {text}: {why}" for text, why in lacking.items() if text not in there]
    if answers.lines and not settings.get("tuning"):
        notes.append(f"Every answer: [{VERB}.csv]({VERB}.csv); Fig. 6 and 9: "
                     f"[{VERB}.png]({VERB}.png).")  # fmt: skip
    return notes


# ---------------------------------------------------------------------- files


def write_csv(answers: Answers, path: Path) -> None:
    """A line for each answer."""
    exemplars = {u["model"]: u["exemplars"] for u in answers.units if "exemplars" in u}
    rows = []
    for line in answers.lines:
        about = [line[name] for name in ("model", "kind", "query", "prompts", "prompt")]
        which = [line["configuration"], line.get("rows", "")]
        found = " ".join(exemplars.get(line["model"], []))
        recalled, precision = metrics(line)
        ranks = " ".join(map(str, line["ranks"]))
        rest = [line.get("reached", ""), line["seconds"]]
        numbers = [line["among"], f"{recalled:.6g}", f"{precision:.6g}", ranks]
        rows.append([*about, *which, found, *numbers, *rest])
    results.write_csv(path, COLUMNS, rows)
