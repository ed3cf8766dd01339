"""`python -m precompute dtrak --out DIR [--dim 1024]`: rows of D-TRAK, beside a finished index.

rows/dtrak.npy: projected gradients of ‖ε_θ‖², the mean square of the predicted noise (v models are
converted to ε first), in the place of TRAK's loss; all layers in one projection.
"""

from __future__ import annotations

import argparse

from precompute import projected
from precompute.projected import Verb

VERB = Verb("dtrak", "eps2", layered=False, dim=1024)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    projected.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Make what is missing of every shard's D-TRAK rows."""
    VERB.run(args)
