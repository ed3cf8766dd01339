"""`python -m precompute customise --model DIR_OR_HUB_ID --images FILES_OR_FOLDER --out DIR`:
teaches a model a new word, <v1>, from a few images.

Cross-attention keys and values and the embedding of <v1> move; every other weight stays
bit-identical. The result is a pipeline folder that diffusers loads as it is. With --data, the
training set of the model, the images are set among it, and with --index the index is made that an
answer needs: see docs/customise.md. Training takes seconds on the embedded model and minutes on a
GPU, so that it is not resumed but begun again; a killed run leaves no --out. The rest resumes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from attribution import sampling, validate
from attribution.denoiser import Denoiser
from attribution.integrity import canonical_hash, model_table, read_json, table_hash
from attribution.types import UserError
from precompute import index, models
from precompute.recipes.customise.config import CustomiseConfig
from precompute.recipes.customise.exemplars import read_exemplars, write_training_set
from precompute.recipes.customise.save import NOTE, save_pipeline
from precompute.recipes.customise.token import DEFAULT, add_token
from precompute.recipes.customise.tune import Concept, mean_loss, tune

TRAINING_SET = "training-set"
_PRIOR_BATCH = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add, defaults = parser.add_argument, CustomiseConfig()
    add("--model", required=True, metavar="DIR_OR_HUB_ID", help="a diffusers pipeline")
    add("--revision", help="the hub model's revision")
    add("--images", type=Path, nargs="+", required=True, metavar="FILES_OR_FOLDER")
    add("--out", type=Path, required=True, metavar="DIR", help="the customised pipeline")
    add("--class-word", default="", metavar="WORD", help="what they show; <v1> begins as it")
    add("--token", default=DEFAULT, help=f"the new word; default {DEFAULT}")
    add("--prompt", help="what the images are called in training; default '<v1> WORD'")
    add("--prior", type=int, default=0, metavar="N", help="pictures of WORD to keep it by")
    add("--steps", type=int, default=defaults.steps, help=f"default {defaults.steps}")
    add("--batch-size", type=int, default=defaults.batch_size, help=f"{defaults.batch_size}")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--data", type=Path, metavar="DIR", help="the model's training set, to set them among")
    add("--artist", default="", metavar="NAME", help="with --data: whose images they are")
    add("--index", type=Path, metavar="DIR", help="with --data: make the index of all that, too")
    add("--clip", metavar="DIR_OR_HUB_ID", help="with --index: its CLIP (default: beside --model)")


def run(args: argparse.Namespace) -> None:
    """Customise, unless --out holds just that already; then the training set and the index."""
    job = _Job(args)
    if (args.out / NOTE).is_file():
        job.compare(read_json(args.out / NOTE))
    elif args.out.exists() and any(args.out.iterdir()):
        raise UserError(f"{args.out} is not empty: name a new folder with --out")
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if args.out.exists():
            args.out.rmdir()
        job.train()
    print(job.said())
    if args.data is not None:
        job.training_set()
    if args.index is not None:
        job.index()


class _Job:
    """One customisation: everything that can be refused is, before the model is loaded."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.word = " ".join(args.class_word.split())
        self.prompt = validate.prompt(args.prompt or f"{args.token} {self.word}".strip())
        sizes = {"steps": args.steps, "batch_size": args.batch_size}
        self.config = replace(CustomiseConfig(seed=validate.seed(args.seed)), **sizes)
        if args.prior < 0 or (args.prior and not self.word):
            raise UserError("--prior is a number from 0, and needs --class-word")
        if args.index is not None and args.data is None:
            raise UserError("--index needs --data, the training set the images are set among")
        self.exemplars = read_exemplars(args.images)
        self.source, hub = models.located(args.model, args.revision)
        self.identity = {
            "model": {"name": args.model, **hub, "sha256": table_hash(model_table(self.source))},
            "token": args.token,
            "class_word": self.word,
            "prompt": self.prompt,
            "prior_images": args.prior,
            "exemplars": [{"id": e.id, "sha256": e.sha256} for e in self.exemplars],
            "settings": asdict(self.config),
        }

    def compare(self, note: dict[str, Any]) -> None:
        """UserError, where --out was made with other images or settings."""
        other = [name for name, value in self.identity.items() if note.get(name) != value]
        if other:
            raise UserError(
                f"{self.args.out} was customised with another {' and '.join(other)}: "
                "repeat those, or name a new folder with --out"
            )

    def train(self) -> None:
        """Load, train, measure and save."""
        began = time.perf_counter()
        denoiser = Denoiser.load(self.source, device=self.args.device)
        token = add_token(denoiser, self.args.token, self.word)
        images = [exemplar.image for exemplar in self.exemplars]
        concept = Concept.of(denoiser, images, [self.prompt] * len(images))
        prior = self._prior(denoiser)
        before = mean_loss(denoiser, concept, self.config.seed)
        prepared = time.perf_counter()
        with tqdm(total=self.config.steps, desc="customise", unit="step") as bar:

            def on_step(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()

            tune(denoiser, token, concept, self.config, prior, on_step)
        trained = time.perf_counter()
        after = mean_loss(denoiser, concept, self.config.seed)
        note = {
            "loss": {"before": round(before, 5), "after": round(after, 5)},
            "seconds": {
                "prepare": round(prepared - began, 2),
                "train": round(trained - prepared, 2),
            },
            "device": str(denoiser.device),
        }
        save_pipeline(denoiser, self.source, self.args.out, {**self.identity, **note})

    def _prior(self, denoiser: Denoiser) -> Concept | None:
        """Pictures of the class word by the model as it is, under that word."""
        if not self.args.prior:
            return None
        advice = sampling.recommended(self.source)
        steps, guidance = sampling.settings(advice, denoiser, None, None)
        seeds = list(range(self.args.prior))
        images = []
        for start in tqdm(range(0, len(seeds), _PRIOR_BATCH), desc="prior", unit="batch"):
            part = seeds[start : start + _PRIOR_BATCH]
            words = [self.word] * len(part)
            images += denoiser.generate_batch(words, part, steps=steps, guidance=guidance)
        return Concept.of(denoiser, images, [self.word] * len(images))

    def said(self) -> str:
        """What came of it, in a line."""
        loss = read_json(self.args.out / NOTE)["loss"]
        return (
            f"{self.args.out}: {self.args.token} learned from {len(self.exemplars)} image(s), "
            f"loss {loss['before']:.4f} -> {loss['after']:.4f}; prompt {self.prompt!r}"
        )

    def training_set(self) -> None:
        """The model's training set with the exemplars among it, beside the customised model."""
        file = self._training_set_file()
        if not file.is_file():
            count = write_training_set(
                self.args.data, self.exemplars, self.prompt, self.args.artist.strip(), file
            )
            print(f"{file.parent}: {count} records, {len(self.exemplars)} of them the images")

    def _training_set_file(self) -> Path:
        """Named after what it holds: a run with another set does not take it for its own."""
        key = canonical_hash([str(self.args.data.resolve()), self.args.artist.strip()])[:8]
        return self.args.out / TRAINING_SET / key / "records.parquet"

    def index(self) -> None:
        """The index of the customised model, made or resumed."""
        clip = self.args.clip or _beside(self.args.data) or _beside(self.source.parent)
        parser = argparse.ArgumentParser()
        index.add_arguments(parser)
        places = ("--model", str(self.args.out), "--data", str(self._training_set_file().parent))
        more = ("--clip", clip) if clip else ()
        out = ("--out", str(self.args.index), "--device", self.args.device)
        index.run(parser.parse_args([*places, *more, *out]))


def _beside(folder: Path) -> str | None:
    """The CLIP in a folder, where there is one."""
    place = folder / models.CLIP
    return str(place) if (place / "config.json").is_file() else None
