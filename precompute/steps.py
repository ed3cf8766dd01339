"""A step of an index as a verb of its own: `python -m precompute losses --out DIR` makes what is
missing of every shard's losses, and of what they need."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from attribution.manifest import make_command
from precompute import options
from precompute.build import Build

AddArguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the index is, and the settings that its bytes depend on."""
    options.add_common(parser)
    options.add_settings(parser)


def run(build: Callable[[Build], None], args: argparse.Namespace) -> None:
    """Do one step, and what is missing of those before it."""
    job = Build.begin(args)
    job.first(build)
    if not job.complete():
        print(f"{args.out} is not finished: `{make_command(args.out)}` makes the rest")


def verb(build: Callable[[Build], None]) -> tuple[AddArguments, Run]:
    """`add_arguments` and `run` of a verb that is one step."""
    return add_arguments, partial(run, build)
