"""Tables and figures of leave-K-out, from its lines: nothing is computed but means.

Writes leave-k-out.md (Tables 1, 2, 4 and 5 of the paper, the mean over flips, the settings),
leave-k-out.csv (a line for each query, method and K), leave-k-out-others.csv (of Table 4) and
leave-k-out-*.png (loss, MSE and CLIP similarity against K with equivalent random removals, as in
Fig. 12 to 17; strips as in Fig. 3) beside the lines. Table 3 is `python -m evaluation forgetting`.

python -m evaluation tables --index assets/proof
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attribution.types import UserError
from evaluation import results
from evaluation.counterfactual import figures, foretold, strips, tables, verdicts
from evaluation.counterfactual.ledger import VERB
from evaluation.counterfactual.lines import METRICS, RANDOM, Lines, Outcome, fullest
from evaluation.counterfactual.options import INDEX
from evaluation.counterfactual.tables import FLIPS, LOSSES, TABLE_2, TABLE_5, Rows
from evaluation.counterfactual.tasks import TUNING, UNSEEN
from evaluation.results import Summary

SECTIONS = (
    # title, the labels shown, and those of which two have to be there, an ablation among them
    ("Table 2: weight sets, and curvature or none", TABLE_2, TABLE_2),
    ("Table 5: the loss that is raised", TABLE_5, LOSSES),
    ("Image and flip: the greater, or the mean", FLIPS, FLIPS),
)
EACH_ITS_OWN = (
    "Each with the settings at the end of this page, which may differ in more than what the table "
    "is named after: what `tune` asked about has its own, and an ablation has those of AbU but for "
    "what it leaves out or changes."
)
ASKED_LAST = (
    "Methods and settings were chosen while looking at other pictures than these (docs/proof.md). "
    "Table 1 has the pictures that all its methods share. Marks and ranks are among the methods "
    "that were asked."
)
COLUMNS = ("query", "for", "method", "settings", "K", *METRICS, "training")
TABLE_4 = ("abu", "abu-ekfac")
SPREADS = [
    f"{group}_{metric}" for group in ("target", "related", "other") for metric in ("mse", "clip")
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `tables`."""
    parser.set_defaults(index=INDEX)


def run(args: argparse.Namespace) -> None:
    """Write what the lines say, of the run with most trainings; UserError where there are none."""
    lines = fullest(args.results)
    if lines is None:
        raise UserError(f"{args.results / VERB}.jsonl holds no results yet: run leave-k-out first")
    if not lines.known or not lines.trainings:
        raise UserError("no training is finished yet: run leave-k-out first")
    for path in write(lines, args.results, args.cache):
        print(path)


def write(lines: Lines, folder: Path, cache: Path) -> list[Path]:
    """Every file that the lines are enough for."""
    run_of = lines.head["run"]
    written = [folder / f"{VERB}.csv", folder / f"{VERB}-others.csv"]
    write_csv(lines, written[0])
    write_others(lines, written[1])
    pictures = {}
    charts = (("", tables.every_method(lines), ()), ("ablations-", TABLE_2, TABLE_2))
    for name, labels, apart in charts:
        for metric in METRICS:
            path = folder / f"{VERB}-{name}{metric.replace('_', '-')}.png"
            if figures.plot(lines, labels, metric, path, apart):
                pictures[path.name] = f"{name.rstrip('-') or 'methods'}: {metric}"
    sheet = folder / f"{VERB}-strips.png"
    base, kept = (folder / VERB / f"{run_of}-{name}" for name in ("base.png", "cells.npz"))
    if base.is_file() and strips.sheet(lines, base, cache / VERB / run_of, kept, sheet):
        pictures[sheet.name] = "drawn again without each method's top K"
    page = folder / f"{VERB}.md"
    page.write_text(markdown(lines, pictures), encoding="utf-8")
    return [*written, page, *(folder / name for name in pictures)]


def markdown(lines: Lines, pictures: dict[str, str]) -> str:
    """The page."""
    head = lines.head
    parts = [
        "# Leave-K-out on the proof world\n\nWritten by `python -m evaluation tables` from "
        f"`{VERB}.jsonl`, run `{head['run']}`; do not edit. Its last lines: `{head['command']}`. "
        f"All lines: {results.where(head)}.",
        results.markdown(Summary(verdicts.figures(lines))),
    ]
    parts += _section("Table 1: every method", tables.comparison(lines, tables.table_1(lines)))
    if rows := tables.comparison(lines, tables.asked_last(lines)):
        parts += [*_section("Pictures asked about last", rows), ASKED_LAST]
    for title, labels, pair in SECTIONS:
        if rows := tables.comparison(lines, tables.blocks(lines, labels, pair)):
            parts += [*_section(title, rows), EACH_ITS_OWN]
    if rows := foretold.table(lines):
        parts += [*_section("What the scores foretell", rows), foretold.NOTE]
    for label in TABLE_4:
        parts += _section(f"Table 4: what else is forgotten, {label}", tables.others(lines, label))
    parts += _section("Settings", tables.settings(lines))
    parts += [f"![{title}]({name})" for name, title in pictures.items()]
    if said := tables.left_out(lines):
        parts.append(said)
    parts.append(verdicts.note(lines))
    return "\n\n".join(parts) + "\n"


def _section(title: str, rows: Rows) -> list[str]:
    if not rows:
        return []
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [f"## {title}", "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])]


def write_csv(lines: Lines, path: Path) -> None:
    """A line for each query, labelled method and K; random removals are means over draws. for: the
    query is for tuning alone, for the report, or a check that came after everything was chosen."""
    places = range(len(lines.gallery))
    uses = ["tuning" if n < TUNING else "report" if n < UNSEEN else "check" for n in places]

    def told(o: Outcome, label: str, arm: str) -> list[Any]:
        values = [getattr(o, metric) for metric in METRICS]
        return [o.query, uses[lines.place[o.query]], label, arm, o.k, *values, o.key]

    labelled: dict[str, str] = {}
    for label, arm in lines.labels.items():
        labelled.setdefault(arm, label)  # an arm of two labels: the first alone
    rows = [told(o, label, arm) for arm, label in labelled.items() for o in lines.outcomes(arm)]
    measured = [entry.id for entry in lines.gallery[: lines.head["settings"]["measured"]]]
    for k in lines.random_sizes:
        rows += [told(o, RANDOM, "") for o in lines.random_outcomes(k, measured)]
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write_csv(path, COLUMNS, rows)


def write_others(lines: Lines, path: Path) -> None:
    """Table 4 picture by picture: a line for each query, method or random removal, and K."""
    rows = (
        [query, label, name, k, *(f"{value:.6g}" for value in values)]
        for label in TABLE_4
        for k, name, query, values in tables.spreads(lines, label)
    )
    results.write_csv(path, ("query", "method", "without", "K", *SPREADS), rows)
