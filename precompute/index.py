"""`python -m precompute index --model DIR_OR_HUB_ID --data DIR --out DIR`: a whole index, made or
resumed.

Runs dataset, latents, features, losses, fisher and gradients. What is there already, with the same
settings and the right hashes, is passed over; so the same command resumes a killed run and mends a
damaged index.
"""

from __future__ import annotations

import argparse

from precompute import features, gradients, losses, options
from precompute.build import Build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_common(parser)
    options.add_settings(parser)


def run(args: argparse.Namespace) -> None:
    """Every step of the index, then its final manifest."""
    job = Build.begin(args)
    for step in (features, losses, gradients):
        job.first(step.build)
    job.complete()
    print(f"{args.out}: {job.n_records} records, complete")
