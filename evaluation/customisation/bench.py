"""Customised models and their answers: tuned once, kept in the cache, worn while they are asked.

A model's folder `<cache>/customised/<name>-<key>/` holds weights.safetensors (keys, values and the
embedding of V*), pictures.npy (uint8 [queries, px, px, 3]) and, written last, made.json; then, by
the pool and timesteps they are of, base losses and gradient rows of the distractors.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from attribution import defaults
from attribution.index import Index
from attribution.integrity import canonical_hash, damage, entry_of, read_json
from attribution.methods.context import Context
from attribution.types import Query, UserError
from attribution.weights import parameter_names
from evaluation.customisation import plan
from evaluation.generated import seed_of
from evaluation.world import World
from precompute.recipes.abc.config import QUICK, TOKEN
from precompute.recipes.abc.plan import Model
from precompute.recipes.customise.config import WEIGHTS, CustomiseConfig
from precompute.recipes.customise.token import (
    add_token,
    embeddings,
    set_row,
    start_embedding,
)
from precompute.recipes.customise.tune import Concept, borrowed, mean_loss, tune
from precompute.shards import write_json, write_npy

FOLDER = "customised"
TUNING = 4  # the first models: of each kind two
WEIGHTS_FILE, PICTURES, MADE = "weights.safetensors", "pictures.npy", "made.json"
ROW = "token"  # V*'s embedding among the weights; no parameter has a name without a dot


@dataclass(frozen=True)
class Settings:
    """What a run's lines have in common. group: exemplars of a style. distractors: of a pool.
    survivors: who goes on after the first timestep of a score, None: everyone. tuning: the models
    that settings are chosen on, in the place of all others.
    """

    group: int = 4
    queries: int = 3
    distractors: int = 1000
    timesteps: tuple[int, ...] = (150, 450, 750)
    survivors: int | None = 200
    steps: int = defaults.STEPS
    guidance: float = defaults.GUIDANCE
    tuning: bool = False
    customise: CustomiseConfig = field(default_factory=lambda: CustomiseConfig(**QUICK))

    def __post_init__(self) -> None:
        if min(self.group, self.queries, self.distractors) < 1 or not self.timesteps:
            raise UserError("group, queries, distractors and timesteps are at least one")
        if self.survivors is not None and self.survivors < 1:
            raise UserError("survivors is a number from 1, or 0 for everyone")


@dataclass(frozen=True)
class Made:
    """A finished customisation. pictures: one for each of the model's prompts."""

    model: Model
    folder: Path
    measured: dict[str, Any]

    @cached_property
    def pictures(self) -> list[Image.Image]:
        """What it drew."""
        array = np.load(self.folder / PICTURES, allow_pickle=False)
        return [Image.fromarray(pixels) for pixels in array]

    def query(self, number: int, word: bool = True) -> Query:
        """The number-th picture; word: asked with its own prompt, else with one without V*."""
        prompt = self.model.prompts[number][1]
        seed = picture_seed(self.model, number)
        shown = prompt if word else plan.without_word(prompt)
        return Query(shown, self.pictures[number], seed=seed)


def picture_seed(model: Model, number: int) -> int:
    """Of the number-th picture of a model: a function of exemplars and number."""
    return seed_of("|".join([*model.ids, str(number)]))


class Bench:
    """One index and its model, which is customised in place and put back."""

    def __init__(self, world: World, settings: Settings, cache: Path) -> None:
        """V* joins the world's model; UserError where it has one already."""
        self.world, self.settings, self.folder = world, settings, cache / FOLDER
        self.index = Index.open(world.root)
        self.base = Context(world.denoiser, self.index)
        self.denoiser = world.denoiser
        # taken before V* is in the table, so that it does not depend on what V* last was
        self._nothing = start_embedding(self.denoiser, "")
        self.token = add_token(self.denoiser, TOKEN)
        grid = set(self.index.timesteps)
        if other := [t for t in settings.timesteps if t not in grid]:
            raise UserError(f"the index has losses at {self.index.timesteps}, not at {other}")

    def knows(self, word: str) -> bool:
        """Whether V* can begin as a word."""
        try:
            start_embedding(self.denoiser, word)
        except UserError:
            return False
        return True

    def models(self, most: int) -> list[Model]:
        """The first `most` customisations that are reported on, or those to tune on; UserError
        without any."""
        s = self.settings
        found = plan.customisations(self.index, self.knows, s.group, s.queries)
        found = found[:TUNING] if s.tuning else found[TUNING:]
        if not found:
            raise UserError(
                f"{self.index.path} has no drawings for models besides those to tune on"
            )
        return found[:most]

    # ------------------------------------------------------------------ customising

    def place(self, model: Model) -> Path:
        """A model's folder, named after all that it is made of."""
        s = self.settings
        how = [asdict(s.customise), s.steps, s.guidance]
        key = canonical_hash([self.index.index_hash, model.as_dict(), how])[:12]
        return self.folder / f"{model.name}-{key}"

    def made(self, model: Model) -> Made | None:
        """The model, where it is finished and whole."""
        folder = self.place(model)
        if not (folder / MADE).is_file():
            return None
        note = read_json(folder / MADE)
        if any(damage(folder / name, entry, full=True) for name, entry in note["files"].items()):
            return None
        return Made(model, folder, note["measured"])

    def make(self, model: Model) -> Made:
        """Customise and draw, unless that is done."""
        if (found := self.made(model)) is not None:
            return found
        folder = self.place(model)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began = time.perf_counter()
        start = start_embedding(self.denoiser, model.word) if model.word else self._nothing
        images = [self.index.image(self.index.row_of(name)) for name in model.ids]
        concept = Concept.of(self.denoiser, images, model.tuning)
        seed = self.settings.customise.seed
        with borrowed(self.denoiser, self.token):
            set_row(self.denoiser, self.token, start)
            before = mean_loss(self.denoiser, concept, seed)
            tune(self.denoiser, self.token, concept, self.settings.customise)
            after = mean_loss(self.denoiser, concept, seed)
            save_file(self._weights(), folder / WEIGHTS_FILE)
            write_npy(folder / PICTURES, self._draw(model))
        measured = {
            "loss": [round(before, 5), round(after, 5)],
            "seconds": round(time.perf_counter() - began, 2),
        }
        files = {name: entry_of(folder / name) for name in (WEIGHTS_FILE, PICTURES)}
        write_json(folder / MADE, {"model": model.as_dict(), "measured": measured, "files": files})
        return Made(model, folder, measured)

    def _weights(self) -> dict[str, Tensor]:
        names = parameter_names(self.denoiser.unet, WEIGHTS)
        kept = {name: self.denoiser.unet.get_parameter(name) for name in names}
        kept[ROW] = embeddings(self.denoiser).weight[self.token.row]
        return {name: t.detach().cpu().contiguous().clone() for name, t in kept.items()}

    def _draw(self, model: Model) -> np.ndarray:
        """Pictures uint8 [queries, px, px, 3]."""
        prompts = [prompt for _, prompt in model.prompts]
        seeds = [picture_seed(model, number) for number in range(len(prompts))]
        steps, guidance = self.settings.steps, self.settings.guidance
        images = self.denoiser.generate_batch(prompts, seeds, steps=steps, guidance=guidance)
        return np.stack([np.asarray(image) for image in images])

    @contextmanager
    def wearing(self, made: Made) -> Iterator[None]:
        """The world's model is the customised one inside the block."""
        weights = load_file(made.folder / WEIGHTS_FILE)
        with borrowed(self.denoiser, self.token):
            set_row(self.denoiser, self.token, weights.pop(ROW))
            with torch.no_grad():
                for name, tensor in weights.items():
                    self.denoiser.unet.get_parameter(name).copy_(tensor)
            yield
