"""Do a method's scores foretell every retraining's loss on every picture (linear datamodelling)?

For every measured picture of the gallery, the tuning ones too, each method scores all training
records; the sum of the scores of what a retraining missed should rank the retrainings by what they
lost. It needs no retraining of its own: what `leave-k-out` made serves every method and setting,
also those that found none of the removals. Scores join the lines of leave-k-out.

python -m evaluation lds --index runs/proof/rich
python -m evaluation lds --index runs/proof/rich --methods abu-ekfac,abu-ekfac:steps=5
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attribution.arguments import names
from evaluation import results
from evaluation.counterfactual import arms, foretold, frozen
from evaluation.counterfactual.options import add_answering
from evaluation.counterfactual.session import Session
from evaluation.counterfactual.tasks import FIRST, THEN
from evaluation.results import Summary
from evaluation.world import world_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `lds`."""
    add_answering(parser)
    add = parser.add_argument
    add("--methods", type=names, default=[*FIRST, *THEN], metavar="NAME[,NAME...]")
    add("--frozen", type=Path, default=frozen.PATH, metavar="FILE", help="settings of the methods")


def run(args: argparse.Namespace) -> None:
    """Score what is missing, then print the table."""
    session = Session.begin(args, world_of(args))
    able = session.able(arms.resolved(args.methods, frozen.read(args.frozen)))
    session.base()
    session.score(session.setting.gallery[: session.setting.measured], list(able.values()))
    session.ledger.note_arms({label: arm.text for label, arm in able.items()})
    print(results.markdown(Summary((), tuple(foretold.table(session.lines)), (foretold.NOTE,))))
