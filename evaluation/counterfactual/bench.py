"""A worker's bench: the index, its model and data, opened once; what a task is done with."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attribution import layout
from attribution.denoiser import Denoiser
from attribution.ensemble import with_unet
from attribution.index import Index
from attribution.methods.registry import Context
from attribution.types import Query, UserError
from evaluation.answers import Answers
from evaluation.counterfactual import arms, ledger
from evaluation.counterfactual.arms import Arm
from evaluation.counterfactual.ledger import numbers, read_pictures, write_pictures
from evaluation.counterfactual.tasks import (
    AnswerTask,
    BaseTask,
    Entry,
    Task,
    TrainingTask,
    training,
)
from evaluation.world import World
from precompute.counterfactual import Picture, draw, losses, squared_errors
from precompute.recipes.model.config import UnetConfig
from precompute.recipes.model.data import load_training_set
from precompute.recipes.model.retrain import recipe_of, retrain, save_unet
from precompute.recipes.model.unet import Latents, training_latents

RELATED = 5
REPORT_EVERY = 0.5  # seconds
Doing = Iterator[float | dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """What a bench is set up with; travels to the workers.

    recipe: of the trainings. measured: losses of the first so many of the gallery. pictures: of the
    gallery, by the model as it is. folder: of the run in the cache. places: further indexes, by the
    name arms call them.
    """

    index: Path
    recipe: UnetConfig
    device: str
    gallery: tuple[Entry, ...]
    measured: int
    steps: int
    guidance: float
    stride: int
    pictures: Path
    folder: Path
    places: tuple[tuple[str, Path], ...] = ()

    def index_at(self, place: str, own: Index) -> Index:
        """The index of a place; UserError where it is not named, or no copy of `own`."""
        path = dict(self.places).get(place)
        if path is None:
            raise UserError(f"where is the index {place!r}? say --place {place}=DIR")
        found = Index.open(path)
        if found.index_hash != own.index_hash:
            raise UserError(f"{path} is not a copy of the index {own.path} with more extras")
        return found


class Bench:
    """Does tasks; a share of 1 as it goes along, at last the line of the finished one."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.answers = Answers(World(setting.index, setting.device))
        self._contexts: dict[str, tuple[Context, dict[str, Any]]] = {}

    def perform(self, task: Task) -> Doing:
        """One task."""
        if isinstance(task, BaseTask):
            return self._base()
        if isinstance(task, AnswerTask):
            return self._answer(task)
        return self._training(task)

    # ------------------------------------------------------------------ parts

    @property
    def denoiser(self) -> Denoiser:
        """The index's model."""
        return self.answers.denoiser

    @property
    def index(self) -> Index:
        """The index."""
        return self.answers.index

    @cached_property
    def data(self) -> Latents:
        """What it was trained on, made on the CPU whatever the device: its last bits count."""
        model = self.denoiser
        if model.device.type != "cpu":
            model = Denoiser.load(self.index.model_path, device="cpu")
        records = load_training_set(self.setting.index)
        return training_latents(model.vae, model.text_encoder, model.tokenizer, records)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Prompt and seed of every picture of the gallery."""
        return [(entry.prompt, entry.seed) for entry in self.setting.gallery]

    @cached_property
    def original(self) -> np.ndarray:
        """The gallery by the model as it is, uint8 [n, px, px, 3]."""
        return read_pictures(self.setting.pictures, len(self.setting.gallery))

    @cached_property
    def measured(self) -> list[Picture]:
        """The pictures whose losses are measured."""
        found = []
        entries = self.setting.gallery[: self.setting.measured]
        for entry, pixels in zip(entries, self.original, strict=False):
            latents = self.denoiser.encode_images([Image.fromarray(pixels)])[0]
            found.append(Picture(entry.id, entry.prompt, latents))
        return found

    def context(self, place: str) -> tuple[Context, dict[str, Any]]:
        """What an arm's method is built from, and the attributors built so far."""
        if place not in self._contexts:
            if not place:
                context = self.answers.context
            else:
                index = self.setting.index_at(place, self.index)
                context = Context(self.denoiser, index, self.answers.context.clip)
            self._contexts[place] = context, {}
        return self._contexts[place]

    # ------------------------------------------------------------------ tasks

    def _base(self) -> Doing:
        path = self.setting.pictures
        if not path.is_file():
            write_pictures(path, self._draw(self.denoiser, self.pairs))
        yield 0.5
        yield {
            "gallery": [vars(entry) for entry in self.setting.gallery],
            "losses": numbers(self._losses(self.denoiser)),
            "related": self._related(),
            "pictures": sha256(self.original.tobytes()).hexdigest(),
        }

    def _related(self) -> list[list[int]]:
        """The nearest other prompts of each prompt by CLIP's text tower; empty lists without a
        CLIP."""
        prompts = [entry.prompt for entry in self.setting.gallery]
        clip = self.answers.context.clip
        if clip is None:
            return [[] for _ in prompts]
        features = clip.texts(prompts).numpy()
        cosines = features @ features.T
        np.fill_diagonal(cosines, -np.inf)
        return np.argsort(-cosines, axis=1, kind="stable")[:, :RELATED].tolist()

    def _answer(self, task: AnswerTask) -> Doing:
        began = time.perf_counter()
        entry, arm = self.setting.gallery[task.query], Arm.parse(task.arm)
        context, built = self.context(arm.place)
        yield 0.0
        setting, picture = self.setting, Image.fromarray(self.original[task.query])
        asked = (setting.steps, setting.guidance, "DDIMScheduler")
        query = Query(entry.prompt, picture, entry.seed, *asked)
        rows, scores = arms.scored(arm, context, query, built)
        yield {
            "query": entry.id,
            "arm": arm.text,
            "digest": arms.digest(arm, context.index),
            **(self._every(rows, scores) if task.whole else {"rows": rows[: ledger.TOP].tolist()}),
            "seconds": round(time.perf_counter() - began, 2),
        }

    def _every(self, rows: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        """Scores by row of the index, for a line; NaN where held out."""
        whole = np.full(self.index.n_records, np.nan)
        whole[rows] = scores
        return ledger.packed(whole)

    def _training(self, task: TrainingTask) -> Doing:
        began = time.perf_counter()
        train_rows = self.index.train_rows
        removed = np.searchsorted(train_rows, np.array(task.removed, dtype=np.int64))
        config = replace(self.setting.recipe, seed=task.seed)
        found: dict[str, Any] = {}
        yield from self._trained(config, removed.tolist(), found)
        trained = time.perf_counter()
        folder = save_unet(found["unet"], self.setting.folder / f"unet-{task.key}")
        try:
            line = self._measure(task, with_unet(self.denoiser, folder))
            if task.keep:
                self._keep(task, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        yield {
            "removed": list(task.removed),
            "seed": task.seed,
            **line,
            "training_loss": float(f"{found['loss']:.6g}"),
            "seconds": [round(trained - began, 1), round(time.perf_counter() - trained, 1)],
            "threads": torch.get_num_threads(),
            "device": str(self.denoiser.device),
        }

    def _trained(
        self, config: UnetConfig, removed: list[int], found: dict[str, Any]
    ) -> Generator[float]:
        """Shares of the training; `found` gets the UNet, and its mean loss over the last tenth."""
        job = retrain(self.data, config, removed, self.denoiser.device)
        last: list[float] = []
        said = time.perf_counter()
        while True:
            try:
                step, loss = next(job)
            except StopIteration as stop:
                found["unet"] = stop.value
                break
            if step > 0.9 * config.steps:
                last.append(loss)
            if time.perf_counter() - said > REPORT_EVERY:
                said = time.perf_counter()
                yield 0.97 * step / config.steps
        found["loss"] = float(np.mean(last))

    # ------------------------------------------------------------------ measures

    def _measure(self, task: TrainingTask, denoiser: Denoiser) -> dict[str, Any]:
        """What the retrained model makes of the gallery."""
        pictures = self._draw(denoiser, self.pairs)
        line: dict[str, Any] = {
            "losses": numbers(self._losses(denoiser)),
            "mse": numbers(squared_errors(pictures, self.original)),
        }
        clip = self.answers.context.clip
        if clip is not None:
            line["clip"] = numbers(self._similarities(clip, pictures))
        own = training((), recipe_of(self.setting.index))
        if task.key == own.key:
            line["weights_differ_by"] = _difference(denoiser.unet, self.denoiser.unet)
        if task.panels:
            pictures = np.concatenate([pictures, *self._panels(denoiser)])
        write_pictures(self.setting.folder / f"{task.key}.png", pictures)
        return line

    def _panels(self, denoiser: Denoiser) -> list[np.ndarray]:
        """The gallery with each prompt's noise exchanged, then with each noise's prompt exchanged:
        both by the next picture's."""
        prompts, noises = zip(*self.pairs, strict=True)
        after = [*range(1, len(prompts)), 0]
        other_noise = [(p, noises[k]) for p, k in zip(prompts, after, strict=True)]
        other_prompt = [(prompts[k], s) for s, k in zip(noises, after, strict=True)]
        return [self._draw(denoiser, pairs) for pairs in (other_noise, other_prompt)]

    def _draw(self, denoiser: Denoiser, pairs: list[tuple[str, int]]) -> np.ndarray:
        return draw(denoiser, pairs, self.setting.steps, self.setting.guidance)

    def _losses(self, denoiser: Denoiser) -> np.ndarray:
        return losses(denoiser, self.measured, self.setting.stride)

    def _similarities(self, clip: Any, pictures: np.ndarray) -> np.ndarray:
        a, b = (
            clip.images([Image.fromarray(picture) for picture in some]).numpy()
            for some in (pictures, self.original)
        )
        return (a * b).sum(1)

    def _keep(self, task: TrainingTask, unet: Path) -> None:
        """The whole pipeline with this UNet, as `precompute trak --models` takes it."""
        target = self.setting.folder / "models" / f"seed-{task.seed}"
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self.setting.index / layout.MODEL, part)
        shutil.rmtree(part / "unet")
        shutil.copytree(unet, part / "unet")
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)


def _difference(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """The largest difference of any weight."""
    theirs = b.state_dict()
    found = [(v - theirs[name]).abs().max() for name, v in a.state_dict().items()]
    return float(torch.stack(found).max())
