"""A picture while other programs hold the cores, beside one on the machine as it is: with OpenMP's
threads spinning as long as they do by default, and as attribution/__init__.py has them.

python -m benchmarks crowded
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from attribution.types import UserError
from evaluation.arguments import count
from evaluation.results import Figure, Summary
from evaluation.world import world_of

ROOT = Path(__file__).parent.parent
SPINS = "GOMP_SPINCOUNT"
DEFAULT = "300000"  # GNU libgomp's own where neither it nor OMP_WAIT_POLICY is set
WAITS = {"libgomp's own": {SPINS: DEFAULT}, "as here": {}}
BUSY = "import os\nos.nice(10)\nwhile True: pass"
PROMPT, STEPS = "an ice cream cone, dessert, by Gerald G.", 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `crowded`."""
    each = "of each setting, every round in a process of its own"
    parser.add_argument("--rounds", type=count(), default=3, metavar="N", help=each)
    parser.add_argument("--pictures", type=count(), default=3, metavar="N", help="a process")


def run(args: argparse.Namespace) -> None:
    """A line a round: seconds of a picture by setting, alone and crowded, in turn."""
    world = world_of(args)
    results = world.results(args, "crowded", {"pictures": args.pictures, "steps": STEPS})
    for _ in range(args.rounds):
        line = {}
        for name, others in (("alone", 0), ("crowded", os.cpu_count() or 1)):
            with busy(others):
                line[name] = {
                    wait: seconds(args.index, args.pictures, more) for wait, more in WAITS.items()
                }
        results.add(time.strftime("%Y-%m-%dT%H:%M:%S"), **line)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """n programs that do nothing but compute, at a lower priority, as background work has."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(index: Path, pictures: int, more: dict[str, str]) -> float:
    """The median of some pictures of ten steps in a new process, without the first."""
    clean = {k: v for k, v in os.environ.items() if k not in (SPINS, "OMP_WAIT_POLICY")}
    code = "import sys; from benchmarks.crowded import draw; draw(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(index.resolve()), str(pictures)],
        env={**clean, **more},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"no picture: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def draw(index: str, pictures: str) -> None:
    """Print the median of the seconds that a picture takes; the first is not counted."""
    from attribution.engine import Engine

    engine = Engine(index, "cpu")
    taken = []
    for seed in range(int(pictures) + 1):
        began = time.perf_counter()
        list(engine.generate(PROMPT, seed, steps=STEPS))
        taken.append(time.perf_counter() - began)
    print(json.dumps(median(taken[1:])))


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """How much slower a crowded machine makes a picture, as the median of the rounds."""
    figures = []
    for wait in WAITS:
        alone, crowded = (median(u[name][wait] for u in units) for name in ("alone", "crowded"))
        told = f"{alone:.2f} s alone, {crowded:.2f} s crowded: {crowded / alone:.1f} times"
        figures.append(Figure(f"a picture of {STEPS} steps, threads waiting {wait}", told))
    note = (
        f"Crowded: one endless loop a core, at nice 10. Medians of {len(units)} rounds; "
        "the settings take turns."
    )
    return Summary(tuple(figures), notes=(note,))
