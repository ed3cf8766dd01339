"""Both sides of every pair as features: the index's rows, and the samples by the same encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from attribution.features import ClipEncoder
from attribution.index import Index
from attribution.manifest import model_of
from attribution.types import UserError
from precompute.recipes.abc.pairs import SAMPLES, UNTUNED, Pair
from precompute.shards import write_npy

Encode = Callable[[Sequence[Image.Image]], Tensor]
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Case:
    """A customised model as retrieval sees it: its samples' features float32 [s, d], and the
    positions of its exemplars among the records."""

    pair: Pair
    samples: Tensor
    exemplars: tuple[int, ...]

    @property
    def artist(self) -> str:
        """Whose exemplars they are."""
        return self.pair.model.artist


@dataclass(frozen=True, eq=False)
class Features:
    """records: the training records' rows, float32 [n, flips, d]; owners: for each the artists'
    names, or its id without any."""

    name: str
    encoder_sha256: str
    records: Tensor
    owners: tuple[frozenset[str], ...]
    cases: tuple[Case, ...]

    def of_split(self, split: str) -> list[Case]:
        """The cases that train heads, or those that validate them."""
        return [case for case in self.cases if case.pair.model.split == split]

    def apart_from(self, artists: set[str]) -> Tensor:
        """Positions of the records by none of `artists`, int64."""
        free = [i for i, owners in enumerate(self.owners) if not owners & artists]
        return torch.tensor(free, dtype=torch.int64)


def encoder_sha256(index: Index, name: str) -> str:
    """The encoder's hash as the index states it; UserError where the index has no such rows."""
    entry = model_of(index.manifest, "clip") if name == "clip" else index.extras.encoders.get(name)
    if entry is None or not index.has_rows(name):
        raise UserError(f"the index {index.path} has no {name} rows and encoder")
    return str(entry["sha256"])


def encoder(index: Index, name: str, device: str) -> Encode:
    """What turns pictures into the features of the index's rows."""
    if name == "clip":
        return ClipEncoder.load(index.clip_path or "", device, index.clip_revision).images
    from attribution.encoders import encoder_of

    return encoder_of(index, name, device).images


def features(index: Index, name: str, pairs: Sequence[Pair], device: str) -> Features:
    """Features of all records and samples; those of samples are kept in the pairs' folders."""
    sha256 = encoder_sha256(index, name)
    opened: list[Encode] = []

    def encode(images: Sequence[Image.Image]) -> Tensor:
        if not opened:
            opened.append(encoder(index, name, device))
        return opened[0](images)

    rows = index.train_rows
    place = {record: i for i, record in enumerate(index.ids(rows))}
    cases = [
        Case(
            pair,
            sample_features(pair, name, sha256, encode),
            tuple(place[record] for record in pair.model.ids),
        )
        for pair in tqdm(pairs, desc=f"{name} features", disable=None)
    ]
    records = torch.from_numpy(index.rows(name, rows).astype(np.float32))
    return Features(name, sha256, records, _owners(index), tuple(cases))


def sample_features(
    pair: Pair, name: str, sha256: str, encode: Encode, images: str = SAMPLES
) -> Tensor:
    """Unit features of a model's pictures, float32 [s, d]; read from its folder where this encoder
    has seen them before."""
    path = pair.folder / f"{Path(images).stem}-{name}-{sha256[:12]}.npy"
    if not path.is_file():
        pictures = pair.images(images)
        parts = [encode(pictures[i : i + _BATCH]) for i in range(0, len(pictures), _BATCH)]
        write_npy(path, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _owners(index: Index) -> tuple[frozenset[str], ...]:
    columns = index.records.select(["id", "artists"]).take(index.train_rows).to_pylist()
    return tuple(frozenset(record["artists"] or [record["id"]]) for record in columns)


def resemblance(found: Features, encode: Encode) -> dict[str, float]:
    """Mean cosine of samples and exemplars (the better of image and flip), for the customised
    models and, on the same prompts and seeds, for the model as it was."""
    tuned, untuned = [], []
    for case in found.cases:
        exemplars = found.records[list(case.exemplars)]
        before = sample_features(case.pair, found.name, found.encoder_sha256, encode, UNTUNED)
        n = len(before)
        for features_, sums in ((case.samples[:n], tuned), (before, untuned)):
            if n:
                cosines = torch.einsum("sd,kfd->skf", features_, exemplars).amax(-1)
                sums.append(float(cosines.mean()))
    mean = {"tuned": tuned, "untuned": untuned}
    return {key: float(np.mean(values)) if values else float("nan") for key, values in mean.items()}
