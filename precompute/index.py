"""`python -m precompute index --model DIR_OR_HUB_ID --data DIR --out DIR`: a whole index, made or
resumed.

Runs dataset, latents, features, losses, fisher and gradients. What is there already, with the same
settings and the right hashes, is passed over; so the same command resumes a killed run and mends a
damaged index.
"""

from __future__ import annotations

import argparse

from precompute import features, gradients, losses
from precompute.build import Build
from precompute.steps import add_arguments as add_arguments


def run(args: argparse.Namespace) -> None:
    """Every step of the index, then its final manifest."""
    job = Build.begin(args)
    for step in (features, losses, gradients):
        job.first(step.build)
    job.complete()
    print(f"{args.out}: {job.n_records} records, complete")
