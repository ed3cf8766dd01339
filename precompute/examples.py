"""`python -m precompute examples --index DIR`: answers kept with an index, so that the page shows
them at once.

Each is generated and attributed like any query, then written to `examples/<slug>/`: the first
method's answer whole, further ones in brief. They name the index they were made with, and are
refused by any other: run this last, and again after every change of model, data or base losses.
`--method all` takes every method this index can run.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tqdm import tqdm

from attribution import defaults, layout, validate
from attribution.engine import Engine
from attribution.saved import save_example
from attribution.types import Attribution, Progress, Query, UserError

ALL = "all"

# slug, prompt, seed: families the embedded model draws well, in different hands.
EXAMPLES: tuple[tuple[str, str, int], ...] = (
    ("apple", "apple, fruit, by Gerald G.", 3),
    ("smiley", "sad smiley, by Nicu Buculei", 2),
    ("playing-card", "queen of hearts, playing card, ornamental deck, by Nicu Buculei", 3),
    ("star", "star with 27 points, step 8, by codifiedivining", 2),
    ("clock", "blue clock at three o'clock, by Nicu Buculei", 2),
    ("ice-cream", "ice cream cone 2 scoops, dessert, by Gerald G.", 1),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--index", type=Path, required=True, metavar="DIR", help="a finished index")
    parser.add_argument("--only", metavar="SLUG", help="remake one of them")
    parser.add_argument("--prompt", help="with --only: make this prompt's example instead")
    parser.add_argument("--seed", default="0", help="of --prompt; default 0")
    parser.add_argument(
        "--method",
        default=defaults.METHOD,
        metavar="NAME[,NAME...]",
        help=f"default {defaults.METHOD}; {ALL}: every method there is, {defaults.METHOD} first",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run(args: argparse.Namespace) -> None:
    """Make the examples asked for."""
    wanted = _wanted(args)
    engine = Engine(args.index, args.device)
    methods = _methods(engine, args.method)
    for slug, prompt, seed in tqdm(wanted, desc="examples", unit="example"):
        _make(engine, slug, prompt, seed, methods)
    if args.only is None:
        _remove_refused(engine)


def _methods(engine: Engine, names: str) -> tuple[str, ...]:
    """The methods asked for, the first of them to be kept whole."""
    known = {entry["name"]: entry for entry in engine.methods()}
    if names != ALL:
        return validate.methods(names, known)
    there = [name for name, entry in known.items() if entry["available"]]
    return tuple(sorted(there, key=lambda name: name != defaults.METHOD))


def _remove_refused(engine: Engine) -> None:
    """Examples of another index, which nothing would show."""
    for slug in engine.examples():
        try:
            engine.example(slug)
        except UserError:
            shutil.rmtree(engine.index.path / layout.EXAMPLES / slug)


def _wanted(args: argparse.Namespace) -> list[tuple[str, str, int]]:
    if args.prompt is not None:
        if not args.only or not args.only.replace("-", "").isalnum():
            raise UserError("--prompt needs --only with a name of letters, digits and hyphens")
        return [(args.only, validate.prompt(args.prompt), validate.seed(args.seed))]
    wanted = [example for example in EXAMPLES if args.only in (None, example[0])]
    if not wanted:
        raise UserError(f"no example {args.only!r}; there are {', '.join(e[0] for e in EXAMPLES)}")
    return wanted


def _make(engine: Engine, slug: str, prompt: str, seed: int, methods: tuple[str, ...]) -> None:
    *_, query = (item for item in engine.generate(prompt, seed) if isinstance(item, Query))
    k = min(defaults.TOP_K, engine.n_train)
    answers: list[Attribution] = [
        item
        for item in engine.attribute(query, methods, k, control=defaults.CONTROL)
        if not isinstance(item, Progress)
    ]
    folder = engine.index.path / layout.EXAMPLES / slug
    if folder.is_dir():
        shutil.rmtree(folder)
    first, *further = answers
    result = engine.result(query, [first], k)
    save_example(folder, query, [first], result, engine.index_hash, further)
