"""Customised models one after another, and what they draw, kept in the run's folder.

A finished model is a folder `<name>/` with samples.npy and untuned.npy (uint8 [n, px, px, 3]) and,
written last, pair.json; a killed run goes on with the first that has none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attribution import sampling
from attribution.denoiser import Denoiser
from attribution.index import Index
from attribution.integrity import canonical_hash, damage, entry_of, read_json
from attribution.types import UserError
from precompute.recipes.abc.config import TOKEN, PairsConfig
from precompute.recipes.abc.plan import Model, plan
from precompute.recipes.customise.token import Token, add_token, set_row, start_embedding
from precompute.recipes.customise.tune import Concept, borrowed, mean_loss, tune
from precompute.shards import write_json, write_npy

SAMPLES, UNTUNED, PAIR = "samples.npy", "untuned.npy", "pair.json"
_BATCH = 16


@dataclass(frozen=True)
class Pair:
    """A finished model: its plan, what was measured, its folder, and the index it was made of."""

    model: Model
    measured: dict[str, Any]
    folder: Path
    index_hash: str

    @classmethod
    def read(cls, folder: Path) -> Pair | None:
        """The model finished in `folder`; None without one, or where a file of it is damaged."""
        if not (folder / PAIR).is_file():
            return None
        note = read_json(folder / PAIR)
        if any(damage(folder / name, entry, full=True) for name, entry in note["files"].items()):
            return None
        return cls(_model_of(note["model"]), note["measured"], folder, note["index_hash"])

    def images(self, name: str = SAMPLES) -> list[Image.Image]:
        """The samples, or what the untuned model drew for the first of their prompts."""
        array = np.load(self.folder / name, allow_pickle=False)
        return [Image.fromarray(pixels) for pixels in array]


def _model_of(note: dict[str, Any]) -> Model:
    lists = {name: tuple(note[name]) for name in ("ids", "tuning")}
    return Model(**{**note, **lists, "prompts": tuple((k, p) for k, p in note["prompts"])})


class Run:
    """All models of an index and a configuration, in a folder of their own below `root`."""

    def __init__(self, index: Index, config: PairsConfig, root: Path, device: str) -> None:
        self.index, self.config, self.device = index, config, device
        key = canonical_hash([index.index_hash, asdict(config)])
        self.folder = root / f"pairs-{key[:12]}"

    @cached_property
    def denoiser(self) -> Denoiser:
        """The index's model; V* joins it with the first customisation."""
        index = self.index
        return Denoiser.load(index.model_path, device=self.device, revision=index.model_revision)

    @cached_property
    def token(self) -> Token:
        """V*."""
        return add_token(self.denoiser, TOKEN)

    @cached_property
    def models(self) -> list[Model]:
        """The plan, written down once."""
        return plan(self.index, self._knows, self.config)

    def _knows(self, word: str) -> bool:
        try:
            start_embedding(self.denoiser, word)
        except UserError:
            return False
        return True

    def make(self, model: Model) -> Pair:
        """Customise and draw, unless that is done."""
        folder = self.folder / model.name
        if (found := Pair.read(folder)) is not None and found.model == model:
            return found
        denoiser, token = self.denoiser, self.token
        set_row(denoiser, token, start_embedding(denoiser, model.word))
        rows = [self.index.row_of(name) for name in model.ids]
        concept = Concept.of(denoiser, [self.index.image(row) for row in rows], model.tuning)
        texts = [text for _, text in model.prompts]
        began = time.perf_counter()
        before = mean_loss(denoiser, concept, self.config.seed)
        untuned = self._draw(model, texts[: self.config.untuned])
        with borrowed(denoiser, token):
            started = time.perf_counter()
            tune(denoiser, token, concept, self.config.customise)
            tuned = time.perf_counter()
            samples = self._draw(model, texts)
            drawn = time.perf_counter()
            after = mean_loss(denoiser, concept, self.config.seed)
        measured = {
            "loss": {"before": round(before, 5), "after": round(after, 5)},
            "seconds": {
                "customise": round(tuned - started, 2),
                "draw": round(drawn - tuned, 2),
                "compare": round(started - began, 2),
            },
        }
        return self._keep(model, folder, samples, untuned, measured)

    def _draw(self, model: Model, prompts: Sequence[str]) -> np.ndarray:
        """Pictures uint8 [n, px, px, 3]; a picture's seed depends on its model and number."""
        advice = sampling.recommended(self.index.model_path)
        steps, guidance = sampling.settings(advice, self.denoiser, self.config.sampling_steps, None)
        images: list[Image.Image] = []
        for start in range(0, len(prompts), _BATCH):
            part = list(prompts[start : start + _BATCH])
            seeds = [_seed(self.config.seed, model.name, start + i) for i in range(len(part))]
            images += self.denoiser.generate_batch(part, seeds, steps=steps, guidance=guidance)
        side = self.denoiser.resolution
        return np.array([np.asarray(i) for i in images], dtype=np.uint8).reshape(-1, side, side, 3)

    def _keep(
        self,
        model: Model,
        folder: Path,
        samples: np.ndarray,
        untuned: np.ndarray,
        measured: dict[str, Any],
    ) -> Pair:
        write_npy(folder / SAMPLES, samples)
        write_npy(folder / UNTUNED, untuned)
        files = {name: entry_of(folder / name) for name in (SAMPLES, UNTUNED)}
        facts = {"index_hash": self.index.index_hash, "measured": measured, "files": files}
        write_json(folder / PAIR, {"model": model.as_dict(), **facts})
        return Pair(model, measured, folder, self.index.index_hash)


def finished(folder: Path) -> list[Pair]:
    """The models that are done in a run's folder, in order."""
    places = sorted(path for path in folder.glob("*") if path.is_dir())
    return [pair for place in places if (pair := Pair.read(place)) is not None]


def _seed(seed: int, name: str, number: int) -> int:
    digest = blake2b(f"{seed}|{name}|{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
