"""Pictures and forwards of many samples while other programs hold the cores, beside the machine as
it is: with as many threads as torch takes, and with as many as help (attribution/pace.py).

python -m benchmarks crowded
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from attribution import pipelines
from attribution.arguments import count
from attribution.engine import Engine
from attribution.pace import cores
from attribution.types import UserError
from evaluation.results import Figure, Summary
from evaluation.world import world_of

ROOT = Path(__file__).parent.parent
FIXED, PACED = "torch's own number of threads", "as many as help"
# until the benchmark ends, in whichever way
BUSY = "import os; mine = os.getppid()\nwhile os.getppid() == mine:\n    sum(range(100_000))"
PROMPT, STEPS = "an ice cream cone, dessert, by Gerald G.", 10
BATCH, BATCHES = 64, 10
WORK = {"picture": f"a picture of {STEPS} steps", "batch": f"a forward of {BATCH} samples"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `crowded`."""
    each = "of each setting, every round in a process of its own"
    parser.add_argument("--rounds", type=count(), default=3, metavar="N", help=each)
    parser.add_argument("--pictures", type=count(), default=3, metavar="N", help="a process")


def run(args: argparse.Namespace) -> None:
    """A line a round: seconds of each work by setting, alone and crowded, in turn."""
    world = world_of(args)
    settings = {"pictures": args.pictures, "steps": STEPS, "batch": BATCH, "batches": BATCHES}
    results = world.results(args, "crowded", settings)
    for _ in range(args.rounds):
        line = {}
        for name, others in (("alone", 0), ("crowded", cores())):
            with busy(others):
                line[name] = {
                    threads: seconds(args.index, args.pictures, threads)
                    for threads in (FIXED, PACED)
                }
        results.add(time.strftime("%Y-%m-%dT%H:%M:%S"), **line)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """n programs that do nothing but compute."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(index: Path, pictures: int, threads: str) -> dict[str, float]:
    """Seconds of each work in a new process."""
    code = "import sys; from benchmarks.crowded import measure; measure(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(index.resolve()), str(pictures), threads],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"no picture: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(index: str, pictures: str, threads: str) -> None:
    """Print the means of the seconds that each work takes; the first of each is not counted."""
    if threads == FIXED:
        pipelines.pace_forwards = lambda module: None
    engine = Engine(index, "cpu")
    denoiser = engine.denoiser
    z = torch.zeros(BATCH, *denoiser.latent_shape)
    inputs = z, denoiser.encode_text([""] * BATCH), z, torch.full((BATCH,), 500)
    with torch.no_grad():
        taken = {
            "picture": _mean(
                int(pictures), lambda n: list(engine.generate(PROMPT, n, steps=STEPS))
            ),
            "batch": _mean(BATCHES, lambda n: denoiser.loss(*inputs)),
        }
    print(json.dumps(taken))


def _mean(times: int, work: Callable[[int], object]) -> float:
    work(0)
    began = time.perf_counter()
    for n in range(times):
        work(n + 1)
    return round((time.perf_counter() - began) / times, 4)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """How much slower a crowded machine makes each work, as medians of the rounds."""
    figures = []
    for key, work in WORK.items():
        for threads in (FIXED, PACED):
            alone, crowded = (
                median(u[name][threads][key] for u in units) for name in ("alone", "crowded")
            )
            told = f"{alone:.2f} s alone, {crowded:.2f} s crowded: {crowded / alone:.1f} times"
            figures.append(Figure(f"{work}, {threads}", told))
    note = (
        f"Crowded: one endless loop a core, of the same priority. Medians of {len(units)} rounds "
        "of processes that take turns; the first of each is not counted."
    )
    return Summary(tuple(figures), notes=(note,))
