"""`python -m precompute retrain --index DIR --without FILE --prompt TEXT --seed N --out DIR`: train
the UNet anew without some records, and look at one picture again.

FILE is a JSON list of record ids. Only the UNet is trained, as `precompute train unet` did and for
as many steps: about six minutes of one core on the proof world. Each line on stdout is a JSON
object: optimiser steps done, how many there are, the mean training loss since the last line. --out
gets picture.png and retraining.json (losses of the picture before and after, how much it changed).
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attribution import sampling, validate
from attribution.arguments import count
from attribution.denoiser import Denoiser
from attribution.ensemble import with_unet
from attribution.images import read_image
from attribution.index import Index
from attribution.pace import THREADS, Pace, cores
from attribution.proofs import UNET, Curve, Retraining, write_retraining
from attribution.types import UserError
from precompute.counterfactual import Picture, draw, losses, squared_errors
from precompute.recipes.model.data import load_training_set
from precompute.recipes.model.retrain import recipe_of, retrain, save_unet
from precompute.recipes.model.unet import Latents, training_latents

REPORT_EVERY = 0.4  # seconds
POINTS = 100  # of the loss curve that is kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add = parser.add_argument
    add("--index", type=Path, required=True, metavar="DIR", help="a finished index")
    add("--without", type=Path, required=True, metavar="FILE", help="JSON list of record ids")
    add("--prompt", required=True)
    add("--seed", required=True, help="of the picture")
    add("--picture", type=Path, metavar="FILE", help="the picture; default: it is drawn")
    add("--out", type=Path, required=True, metavar="DIR", help="an empty folder, or a new one")
    add("--threads", type=count(), help="default: as many as are faster than one at the moment")
    share = "trainings that share the cores: each tries its part of them; default 1"
    add("--share", type=count(), default=1, metavar="N", help=share)
    end = "end when standard input does, as when the program that began this is gone"
    add("--until-eof", action="store_true", help=end)
    add("--keep", action="store_true", help="keep the UNet, in half precision, in --out")
    add("--weights", type=Path, metavar="DIR", help="a UNet kept before: train nothing")


def run(args: argparse.Namespace) -> None:
    """Train, then write what was seen."""
    if args.until_eof:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with _threads(args) as pace:
        prompt, seed = validate.prompt(args.prompt), validate.seed(args.seed)
        without = _ids(args.without)
        work = Retrainer(args.index, pace)
        work.positions(without)
        if args.weights and not args.weights.is_dir():
            raise UserError(f"no UNet at {args.weights}")
        image = work.picture(args.picture) if args.picture else None
        if args.out.exists() and any(args.out.iterdir()):
            raise UserError(f"{args.out} is not empty: name a new folder")
        args.out.mkdir(parents=True, exist_ok=True)
        changed, curve, seconds = _model(args, work, without)
        made, before = work.look(changed, without, prompt, seed, image, curve, seconds)
        write_retraining(args.out, made, before)


def _model(args: argparse.Namespace, work: Retrainer, without: Sequence[str]) -> Trained:
    """The model kept before, or a new one, whose training is told line by line."""
    if args.weights:
        return with_unet(work.denoiser, args.weights), (), 0.0
    (trained,) = _told(work.train(without, args.out / UNET))
    if not args.keep:
        _forget(args.out / UNET)
    return trained


def _told(job: Iterator[Any]) -> Iterator[Any]:
    for line in job:
        if isinstance(line, dict):
            print(json.dumps(line), flush=True)
        else:
            yield line


@contextmanager
def _threads(args: argparse.Namespace) -> Iterator[Pace | None]:
    """Torch's threads as asked for, a Pace where they may change; afterwards as they were."""
    with THREADS.as_given():
        torch.set_num_threads(args.threads or 1)
        yield None if args.threads else Pace(max(1, cores() // args.share))


def _end_with_stdin() -> None:
    """Standard input is a pipe from the program that began this: it ends when that one does."""
    while os.read(0, 4096):  # unbuffered: a buffer's lock would be held when this process ends
        pass
    os._exit(1)


def _ids(path: Path) -> tuple[str, ...]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} is no JSON list of record ids")
    return tuple(found)


def _forget(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


Trained = tuple[Denoiser, Curve, float]


class Retrainer:
    """An index with its model, its training data and how the model was trained.

    pace: sets torch's threads as a training goes along; None: they stay as they are.
    """

    def __init__(self, root: Path, pace: Pace | None = None) -> None:
        self.pace = pace
        self.recipe = recipe_of(root)
        self.index = Index.open(root)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The model as it is."""
        return Denoiser.load(self.index.model_path, device="cpu")

    @cached_property
    def data(self) -> Latents:
        """What the UNet was trained on."""
        model = self.denoiser
        records = load_training_set(self.index.path)
        return training_latents(model.vae, model.text_encoder, model.tokenizer, records)

    def train(
        self, without: Sequence[str], folder: Path
    ) -> Generator[dict[str, Any] | Trained, None, None]:
        """{"step", "steps", "loss"} now and then, at last the model with its new UNet, the loss
        curve, and the seconds it took. folder: where the UNet goes."""
        began = said = time.perf_counter()
        job = retrain(self.data, self.recipe, self.positions(without))
        values: list[float] = []
        told = 0
        while True:
            started = time.perf_counter()
            try:
                step, loss = next(job)
            except StopIteration as stop:
                unet = stop.value
                break
            values.append(loss)
            if self.pace:
                THREADS.use(self.pace.took(time.perf_counter() - started))
            if time.perf_counter() - said > REPORT_EVERY or step == self.recipe.steps:
                mean = float(np.mean(values[told:]))
                yield {"step": step, "steps": self.recipe.steps, "loss": round(mean, 6)}
                said, told = time.perf_counter(), len(values)
        seconds = round(time.perf_counter() - began, 1)
        changed = with_unet(self.denoiser, save_unet(unet, folder))
        yield changed, tuple(_curve(values)), seconds

    def picture(self, path: Path) -> Image.Image:
        """The picture in a file, at the model's size; UserError where there is none."""
        return self.denoiser.prepare_image(read_image(path))

    def positions(self, without: Sequence[str]) -> list[int]:
        """Places of records among the training records; UserError for any other."""
        rows = self.index.training_rows(without)
        return np.searchsorted(self.index.train_rows, rows).tolist()

    def look(
        self,
        changed: Denoiser,
        without: Sequence[str],
        prompt: str,
        seed: int,
        image: Image.Image | None = None,
        curve: Curve = (),
        seconds: float = 0.0,
    ) -> tuple[Retraining, float]:
        """What the new model makes of a picture, and the loss of the model as it is."""
        advice = sampling.recommended(self.index.model_path)
        steps, guidance = sampling.settings(advice, self.denoiser, None, None)
        before, after = (
            Image.fromarray(draw(model, [(prompt, seed)], steps, guidance)[0])
            if model is changed or image is None
            else image
            for model in (self.denoiser, changed)
        )
        latents = self.denoiser.encode_images([before])[0]
        picture = Picture(f"{seed}|{prompt}", prompt, latents)
        own, new = (float(losses(model, [picture])[0]) for model in (self.denoiser, changed))
        pair = (np.asarray(side.convert("RGB"))[None] for side in (before, after))
        change = float(squared_errors(*pair)[0])
        return Retraining(tuple(without), after, new, change, curve, seconds), own


def _curve(values: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Means over equal spans of steps, at their last steps."""
    for span in np.array_split(np.arange(len(values)), min(POINTS, len(values))):
        mean = np.mean([values[n] for n in span])
        yield int(span[-1]) + 1, float(f"{mean:.5g}")
