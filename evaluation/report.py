"""All results as one page: `python -m evaluation report` writes evaluation/results/README.md."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from attribution.types import UserError
from evaluation import results
from evaluation.results import Figure, Summary

PAGE = "README.md"
PROGRAMS = ("evaluation.", "benchmarks.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb `report` has no arguments of its own."""


def run(args: argparse.Namespace) -> None:
    """Write the page; UserError when there is nothing to report."""
    path = args.results / PAGE
    path.write_text(page(args.results), encoding="utf-8")
    print(path)


def page(folder: Path) -> str:
    """The page's Markdown: every results file of the folder, by name."""
    sections, figures = [], []
    for path in sorted(folder.glob("*.jsonl")):
        verb = path.stem
        runs = results.current(folder, verb)
        if not runs:
            continue
        # by the name in the file: results of other programs are reported without importing them
        summaries = results.summaries(_module(runs[-1][0]), runs)
        for (head, units), summary in zip(runs, summaries, strict=False):
            figures += [(verb, figure) for figure in summary.figures]
            sections.append(_section(verb, head, units, summary))
        for summary in summaries[len(runs) :]:
            sections.append(f"## {verb}, all runs\n\n{results.markdown(summary)}")
    if not sections:
        raise UserError(f"no results in {folder}: run a verb first")
    intro = (
        "# Quality, measured\n\nWritten by `python -m evaluation report` from the `.jsonl` files "
        "beside it; do not edit. Every figure names the command that measures it again.\n\n"
    )
    return intro + _overview(figures) + "\n\n" + "\n\n".join(sections) + "\n"


def _overview(figures: list[tuple[str, Figure]]) -> str:
    marks = {True: "pass", False: "**fail**", None: ""}
    lines = ["| figure | value | target | | verb |", "|---|---|---|---|---|"]
    for verb, f in figures:
        lines.append(
            f"| {f.name} | {f.value} | {f.target} | {marks[f.passed]} | [{verb}](#{verb}) |"
        )
    return "\n".join(lines)


def _module(head: Mapping[str, Any]) -> Any:
    """The verb that wrote a head; UserError for one that no program here has."""
    name = str(head.get("module"))
    if not name.startswith(PROGRAMS):
        raise UserError(f"results of {name!r}: not a verb of {' or '.join(PROGRAMS)}")
    return import_module(name)


def _section(verb: str, head: Mapping[str, Any], units: list, summary: Summary) -> str:
    program = head["module"].partition(".")[0]
    about = (
        f"`{head['command']}` on {head['date'][:16].replace('T', ' ')} UTC; {results.where(head)}; "
        f"index {_short(head['index_hash'])}; {len(units)} lines of run "
        f"`{head['run']}` in `{verb}.jsonl`; print again: `python -m {program} {verb} --report`."
    )
    return f"## {verb}\n\n{about}\n\n{results.markdown(summary)}"


def _short(index_hash: str | None) -> str:
    return f"`{index_hash[:12]}`" if index_hash else "not made yet"
