"""EDGE: results as JSON lines, one line per finished unit, so that a stopped verb goes on where it
was.

A file holds lines of several runs. A run is what its settings and the index (or model, or data)
say: every line carries the run's key, and a head line with command, machine and date precedes the
units of each session of it.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

FOLDER = Path("evaluation/results")


@dataclass(frozen=True)
class Figure:
    """One measured quality: what is shown, what it should be, and whether it is (None: there is no
    target).
    """

    name: str
    value: str
    target: str = ""
    passed: bool | None = None


# Rows of cells for Markdown, the first row the heads.
Table = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Summary:
    """What a verb's lines say: figures for the report, a table, remarks, and further tables that
    stand before the remarks.
    """

    figures: tuple[Figure, ...]
    table: Table = ()
    notes: tuple[str, ...] = ()
    more: tuple[Table, ...] = ()


@dataclass
class Results:
    """The lines of one run in `<folder>/<verb>.jsonl`."""

    path: Path
    run: str
    head: dict[str, Any]
    units: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: bool = False

    @classmethod
    def open(cls, folder: Path, verb: str, subject: str, settings: Mapping[str, Any]) -> Results:
        """The run of `verb` on `subject` (index, model or data hash) with `settings`; what it has
        is in `units`.
        """
        identity = json.dumps([verb, subject, dict(settings)], sort_keys=True)
        run = sha256(identity.encode()).hexdigest()[:12]
        head = {
            "head": verb,
            "run": run,
            "subject": subject,
            "settings": dict(settings),
            "command": command(),
            "machine": machine(),
        }
        path = folder / f"{verb}.jsonl"
        return cls(path, run, head, _units(path, run))

    def add(self, key: str, **values: Any) -> dict[str, Any]:
        """Append one finished unit; on disk when this returns."""
        if not self.begun:
            self._write({**self.head, "date": datetime.now(UTC).isoformat(timespec="seconds")})
            self.begun = True
        line = {"unit": key, "run": self.run, **values}
        self._write(line)
        self.units[key] = line
        return line

    def refresh(self) -> None:
        """Read again what is there by now: several commands may share the file."""
        self.units = _units(self.path, self.run)

    def _write(self, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(line, sort_keys=True) + "\n"
        # unbuffered, so that a line is one write: several processes may share the file (--part)
        with self.path.open("ab+", buffering=0) as file:
            # a killed run may have left half a line: it must not swallow this one
            if size := file.seek(0, os.SEEK_END):
                file.seek(size - 1)
                text = text if file.read(1) == b"\n" else f"\n{text}"
            file.write(text.encode())
            os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a results file; empty where there is no file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue  # cut off by a kill: its unit runs again
    return lines


def _units(path: Path, run: str) -> dict[str, dict[str, Any]]:
    return {
        line["unit"]: line for line in read_lines(path) if line["run"] == run and "unit" in line
    }


Run = tuple[dict[str, Any], list[dict[str, Any]]]


def current(folder: Path, verb: str) -> list[Run]:
    """(head, units) of every run on the subject evaluated last, in the order they were begun.

    A run's head is its last session's, with the `machines` of all its sessions. Runs on former
    indexes, models or data are left out.
    """
    path = folder / f"{verb}.jsonl"
    heads = [line for line in read_lines(path) if "head" in line]
    runs: dict[str, dict[str, Any]] = {}
    for head in heads:
        if head["subject"] == heads[-1]["subject"]:
            before = runs.get(head["run"], {}).get("machines", [])
            machines = before if head["machine"] in before else [*before, head["machine"]]
            runs[head["run"]] = {**head, "machines": machines}
    found = [(head, list(_units(path, run).values())) for run, head in runs.items()]
    return [(head, units) for head, units in found if units]


def latest(folder: Path, verb: str) -> Run | None:
    """The current run that was begun last; None where the verb never ran."""
    runs = current(folder, verb)
    return runs[-1] if runs else None


def summaries(module: Any, runs: Sequence[Run]) -> list[Summary]:
    """What a verb says of each run; then of several together, where it has words for that."""
    said = [module.summarise(*found) for found in runs]
    several = len(runs) > 1 and hasattr(module, "together")
    return [*said, module.together(runs)] if several else said


def command() -> str:
    """The command of this process, as it can be typed again."""
    module = Path(sys.argv[0])
    name = f"-m {module.parent.name}" if module.name == "__main__.py" else module.name
    return f"python {name} {shlex.join(sys.argv[1:])}".strip()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def where(head: Mapping[str, Any]) -> str:
    """Every machine that a run's sessions were on, in words, and its versions of torch."""
    found = head.get("machines", [head["machine"]])
    names = dict.fromkeys(m["gpu"] or f"{m['processor']} ({m['cores']} cores)" for m in found)
    versions = dict.fromkeys(m["torch"] for m in found)
    return f"{' and '.join(names)}; torch {' and '.join(versions)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def markdown(summary: Summary) -> str:
    """Figures, tables and notes as Markdown."""
    lines: list[str] = []
    if summary.figures:
        marks = {True: "pass", False: "**fail**", None: ""}
        shown = ((f.name, f.value, f.target, marks[f.passed]) for f in summary.figures)
        lines += ["| figure | value | target | |", "|---|---|---|---|", *map(_row, shown)]
    for table in (summary.table, *summary.more):
        if table:
            head, *body = table
            lines += ["", _row(head), "|" + "---|" * len(head), *(_row(cells) for cells in body)]
    if summary.notes:
        lines += ["", *summary.notes]
    return "\n".join(lines).lstrip("\n")


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table with a head, UTF-8, a line a row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
