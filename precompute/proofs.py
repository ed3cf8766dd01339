"""`python -m precompute proofs --index DIR`: finished proofs kept with an index, so that the page
shows them at once.

Each makes a picture, asks a method for its top K, and trains the UNet twice: without those, and
without K random records. They name the index they were made with, and are refused by any other.
The model without K random records is kept too, so that the page trains only the other one.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from attribution import defaults, layout, validate
from attribution.arguments import count
from attribution.engine import Engine
from attribution.ensemble import with_unet
from attribution.pace import THREADS, Pace, cores
from attribution.proofs import (
    UNET,
    Control,
    Proof,
    control_folder,
    load_control,
    load_proof,
    save_control,
    save_proof,
)
from attribution.types import Attribution, Query, UserError
from precompute.retrain import Retrainer, Trained

# slug, prompt, seed, method, K: pictures of families the proof world draws well.
PROOFS: tuple[tuple[str, str, int, str, int], ...] = (
    (
        "playing-card",
        "queen of hearts, playing card, ornamental deck, by Nicu Buculei",
        3,
        "abu-ekfac",
        10,
    ),
    ("star", "star with 27 points, step 8, by codifiedivining", 2, "abu", 10),
    ("arrow", "red arrow down, by Benji Park", 1, "abu-ekfac", 10),
    ("led", "green circle led, by Jean-Victor Balin", 4, "clip", 10),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add = parser.add_argument
    add("--index", type=Path, required=True, metavar="DIR", help="an index that can be retrained")
    add("--only", metavar="SLUG", help="make one of them")
    add("--prompt", help="with --only: make this prompt's proof instead")
    add("--seed", default="0", help="of --prompt; default 0")
    add("--method", default=defaults.METHOD, help=f"of --prompt; default {defaults.METHOD}")
    add("--k", type=int, default=10, help="of --prompt: records left out; default 10")
    add("--threads", type=count(), help="at most; default: one a core")
    add("--anew", action="store_true", help="also those that are there: methods have changed")


def run(args: argparse.Namespace) -> None:
    """Make those asked for that are not there for this very index."""
    with THREADS.as_given():
        if args.threads:
            torch.set_num_threads(args.threads)
        _make_all(args, Pace(args.threads or cores()))


def _make_all(args: argparse.Namespace, pace: Pace) -> None:
    wanted = _wanted(args)
    engine, work = Engine(args.index, "cpu"), Retrainer(args.index, pace)
    for slug, *asked in tqdm(wanted, desc="proofs", unit="proof"):
        folder = args.index / layout.PROOFS / slug
        if _there(folder, engine.index_hash) and not args.anew:
            control_of(work, engine.control_ids(asked[-1]))
            continue
        proof = make(engine, work, *asked)
        shutil.rmtree(folder, ignore_errors=True)
        save_proof(folder, proof, engine.index_hash)


def _wanted(args: argparse.Namespace) -> list[tuple[Any, ...]]:
    if args.prompt is not None:
        if not args.only or not args.only.replace("-", "").isalnum():
            raise UserError("--prompt needs --only with a name of letters, digits and hyphens")
        prompt, seed = validate.prompt(args.prompt), validate.seed(args.seed)
        return [(args.only, prompt, seed, args.method, args.k)]
    wanted = [proof for proof in PROOFS if args.only in (None, proof[0])]
    if not wanted:
        raise UserError(f"no proof {args.only!r}; there are {', '.join(p[0] for p in PROOFS)}")
    return list(wanted)


def _there(folder: Path, index_hash: str) -> bool:
    try:
        load_proof(folder, index_hash)
    except UserError:
        return False
    return True


def make(engine: Engine, work: Retrainer, prompt: str, seed: int, method: str, k: int) -> Proof:
    """One proof: two trainings, or one where the index has the random removal of this K."""
    k = validate.top_k(k, engine.n_train - 1)
    *_, query = (item for item in engine.generate(prompt, seed) if isinstance(item, Query))
    answers = engine.attribute(query, (method,), k, exhaustive=True)
    *_, answer = (item for item in answers if isinstance(item, Attribution))
    found, random = answer.ids[:k], engine.control_ids(k)
    sides = (found, _trained(work, found)), (random, control_of(work, random))
    made = []
    for without, (changed, curve, seconds) in sides:
        side, loss = work.look(changed, without, prompt, seed, query.image, curve, seconds)
        made.append(side)
    return Proof(query, method, loss, *made)


def control_of(work: Retrainer, without: tuple[str, ...]) -> Trained:
    """The model without these random records that is kept with the index, else one put there."""
    root, index_hash = work.index.path, work.index.index_hash
    kept = load_control(root, without, index_hash)
    if kept is not None:
        return with_unet(work.denoiser, kept.unet), kept.curve, kept.seconds
    folder = control_folder(root, len(without))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    *_, last = work.train(without, folder / UNET)
    assert not isinstance(last, dict)
    changed, curve, seconds = last
    save_control(Control(without, folder / UNET, curve, seconds), index_hash)
    return changed, curve, seconds


def _trained(work: Retrainer, without: tuple[str, ...]) -> Trained:
    with tempfile.TemporaryDirectory() as place:
        *_, last = work.train(without, Path(place) / UNET)
    assert not isinstance(last, dict)
    return last
