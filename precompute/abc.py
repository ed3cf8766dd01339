"""`python -m precompute abc --out INDEX [--index DIR] [--run runs/abc]`: heads tuned on customised
models (AbC), for the methods clip-abc and dino-abc.

About ninety models are customised to training drawings of --index (default: --out), each draws
samples, and a head for CLIP and one for DINO learn to find the exemplars of a sample; see
precompute/recipes/abc/. The heads are installed in --out as encoders clip-abc and dino-abc. A
killed run goes on with the first unfinished model. About 25 minutes on four CPU cores.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from attribution.heads import Head
from attribution.index import Index
from attribution.pipelines import choose_device
from attribution.types import UserError
from attribution.validate import listed
from precompute.extras import install_encoder
from precompute.recipes.abc.config import FEATURES, HeadConfig, PairsConfig
from precompute.recipes.abc.features import (
    Features,
    encoder,
    encoder_sha256,
    features,
    resemblance,
)
from precompute.recipes.abc.heads import tune_head, validation
from precompute.recipes.abc.pairs import Pair, Run
from precompute.recipes.abc.plan import KINDS
from precompute.recipes.abc.retrieval import FIELDS

# options that are fields of PairsConfig
_FIELDS = (
    "objects",
    "styles",
    "group",
    "per_artist",
    "samples",
    "untuned",
    "sampling_steps",
    "seed",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the index that gets the heads")
    add("--index", type=Path, metavar="DIR", help="the one customised (default: --out)")
    add("--run", type=Path, default=Path("runs/abc"), metavar="DIR", help="samples and heads")
    add("--features", default=",".join(FEATURES), help=f"default {','.join(FEATURES)}")
    for name, value in _defaults().items():
        add(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    add("--steps", type=int, help="of each customisation")
    add("--batch-size", type=int, help="of each customisation")
    add("--head-steps", type=int, default=HeadConfig.steps, help=f"default {HeadConfig.steps}")
    add("--limit", type=int, metavar="N", help="stop after N models; the same command goes on")
    add("--device", default="auto", help="auto, cpu or cuda")


def _defaults() -> dict[str, int]:
    config = PairsConfig()
    return {name: getattr(config, name) for name in _FIELDS}


def run(args: argparse.Namespace) -> None:
    """The pairs, then the heads, then a table of what they are worth."""
    index, device = Index.open(args.index or args.out), str(choose_device(args.device))
    names = wanted_features(index, args.features)
    work = Run(index, pairs_config(args), args.run, device)
    pairs = make_pairs(work, args.limit)
    print(said_of_pairs(pairs))
    if len(pairs) < len(work.models):
        print(f"{len(pairs)} of {len(work.models)} models done; the same command goes on")
        return
    for name in names:
        found = features(index, name, pairs, device)
        print(said_of_samples(found, index, device))
        head = _tuned(found, work.folder.name, HeadConfig(steps=args.head_steps))
        folder = work.folder / "heads" / f"{name}-abc"
        head.save(folder)
        install(args.out, name, folder)
        print(said_of_head(head))


def pairs_config(args: argparse.Namespace) -> PairsConfig:
    """The configuration that the arguments name."""
    config = PairsConfig(**{name: getattr(args, name) for name in _FIELDS})
    sizes = {"steps": args.steps, "batch_size": args.batch_size}
    given = {name: value for name, value in sizes.items() if value is not None}
    return replace(config, customise=replace(config.customise, **given, seed=config.seed))


def wanted_features(index: Index, text: str) -> list[str]:
    """The features asked for that the index has; UserError for an unknown name, or for none."""
    names = listed(text)
    if other := [name for name in names if name not in FEATURES]:
        raise UserError(f"no features {other[0]!r}; there are {', '.join(FEATURES)}")
    found, why = [], ""
    for name in names:
        try:
            encoder_sha256(index, name)
            found.append(name)
        except UserError as error:
            why = str(error)
            print(f"{name}-abc is left out: {error}")
    if not found:
        raise UserError(why or "--features names none")
    return found


def make_pairs(work: Run, limit: int | None) -> list[Pair]:
    """Every model, or the first `limit` of them."""
    pairs = []
    with tqdm(total=len(work.models), desc="models", unit="model") as bar:
        for model in work.models[:limit]:
            pairs.append(work.make(model))
            loss = pairs[-1].measured["loss"]
            bar.set_postfix_str(f"loss {loss['before']:.3f} -> {loss['after']:.3f}", refresh=False)
            bar.update()
    return pairs


def _tuned(found: Features, pairs: str, config: HeadConfig) -> Head:
    """The head with all that config.json says of it; pairs: the folder of its models."""
    tuned = tune_head(found, config)
    about = {**tuned.head.about, "pairs": pairs, "validation": validation(found, tuned.head)}
    return replace(tuned.head, about=about)


def install(out: Path, name: str, folder: Path) -> None:
    """Put a head into an index; UserError where its features are of another encoder."""
    head, sha256 = Head.load(folder), encoder_sha256(Index.open(out, "quick"), name)
    if head.about["encoder_sha256"] != sha256:
        raise UserError(
            f"{out} has another {name} encoder ({sha256[:12]}…) than the head was trained on "
            f"({head.about['encoder_sha256'][:12]}…)"
        )
    install_encoder(out, f"{name}-abc", folder)


def said_of_pairs(pairs: list[Pair]) -> str:
    """Loss of the exemplars and seconds, by kind."""
    lines = []
    for kind in KINDS:
        of_kind = [pair.measured for pair in pairs if pair.model.kind == kind]
        if of_kind:
            before, after = (
                _mean(m["loss"][side] for m in of_kind) for side in ("before", "after")
            )
            tuning, drawing = (
                _mean(m["seconds"][s] for m in of_kind) for s in ("customise", "draw")
            )
            lines.append(
                f"{len(of_kind)} {kind} models: loss {before:.4f} -> {after:.4f}; "
                f"{tuning:.1f} s to customise, {drawing:.1f} s to draw"
            )
    return "\n".join(lines)


def said_of_samples(found: Features, index: Index, device: str) -> str:
    """How much the samples resemble their exemplars, against the untuned model."""
    cosines = resemblance(found, encoder(index, found.name, device))
    return (
        f"{found.name} cosine of samples and exemplars: {cosines['tuned']:.3f}; "
        f"of the untuned model's on the same prompts and seeds: {cosines['untuned']:.3f}"
    )


def said_of_head(head: Head) -> str:
    """Retrieval before and after, on held-out artists."""
    sides = head.about["validation"]
    metrics = ", ".join(
        f"{name} {sides['before'][name]:.3f} -> {sides['after'][name]:.3f}" for name in FIELDS
    )
    models = sides["before"]["models"]
    return (
        f"{head.about['features']}-abc, penalty {head.about['penalty']}: {metrics} "
        f"({models} models of held-out artists)"
    )


def _mean(values) -> float:
    return float(np.mean(list(values)))
