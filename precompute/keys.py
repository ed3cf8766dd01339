"""The files of each core step, and what their bytes depend on: hashed, its key in done.json.

A step's own module asks here whether to make a shard again, and a whole index is complete only
while every recorded key is the one that its settings ask for: a part made with another model, or
with other settings, does not count, whichever verb ran last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribution import layout
from attribution.integrity import canonical_hash, table_hash
from attribution.manifest import model_of
from precompute.shards import Work

# The settings of the training set that its records depend on.
DATASET = ("sha256", "shard_size", "max_captions", "link_images", "skip_bad")
# What a step has written once it is done, in each shard or of the whole index; the rows of features
# are as the CLIP has it. An index from before a file was known has the step to do again.
FILES: dict[str, tuple[str, ...]] = {
    "dataset": (layout.RECORDS,),
    "latents": (layout.LATENTS,),
    "features": (),
    "losses": (layout.BASE_LOSS, layout.BASE_LOSS_EPS2),
    layout.FISHER_STEP: (layout.FISHER_DIAGONAL, layout.EKFAC),
    "gradients": (f"{layout.ROWS}/{layout.rows_name('gradients')}",),
}
Table = dict[str, Any]


def key(step: str, device: str, inputs: Mapping[str, Any]) -> str:
    """Hash of all that a step's bytes depend on."""
    return canonical_hash({"step": step, "device": device, **inputs})


@dataclass(frozen=True)
class CoreInputs:
    """Of the index at `out` with the `settings` of its manifest; a method each step, of a shard."""

    out: Path
    settings: Mapping[str, Any]

    def latents(self, work: Work) -> Table:
        """VAE, sizes and the shard's records."""
        model = self._model
        vae = {name: entry for name, entry in model["files"].items() if name.startswith("vae/")}
        return {
            "vae": table_hash(vae),
            "resolution": model["resolution"],
            "latent_shape": model["latent_shape"],
            "records": work.entry(layout.RECORDS)["sha256"],
        }

    def features(self, work: Work) -> Table:
        """CLIP, where there is one, and the shard's records."""
        clip = model_of(self.settings, "clip")
        return {
            "clip": clip["sha256"] if clip else None,
            "records": work.entry(layout.RECORDS)["sha256"],
        }

    def losses(self, work: Work) -> Table:
        """Model, noise, grid, and what of the shard is noised."""
        return {
            **self._forward,
            "timesteps": self.settings["timesteps"],
            "captions": self.settings["dataset"]["captions"],
            **hashes(work),
        }

    def curvature(self) -> Table:
        """Model, noise and weights: what a shard's part and the whole share."""
        return {**self._forward, **self.settings["curvature"]}

    def fisher(self, works: Sequence[Work]) -> Table:
        """The same and every shard, for the curvature is of the whole index."""
        inputs = [sha256 for work in works for sha256 in hashes(work).values()]
        return {**self.curvature(), "inputs": inputs}

    def gradients(self, work: Work) -> Table:
        """Model, noise, projection, the metric and the shard."""
        metric = self.curvature_folder.entry(layout.FISHER_DIAGONAL)["sha256"]
        return {**self._forward, **self.settings["gradients"], "metric": metric, **hashes(work)}

    @property
    def curvature_folder(self) -> Work:
        """Where the step of the whole index is noted."""
        return Work(self.out / layout.CURVATURE)

    @property
    def _forward(self) -> Table:
        return {"model": self._model["sha256"], "noise": self.settings["noise"]}

    @property
    def _model(self) -> Table:
        return next(model for model in self.settings["models"] if model["role"] == "pipeline")


def hashes(work: Work) -> Table:
    """What of a shard a forward of the UNet reads."""
    return {
        "records": work.entry(layout.RECORDS)["sha256"],
        "latents": work.entry(layout.LATENTS)["sha256"],
    }


def dataset(settings: Mapping[str, Any], start: int, position: int) -> str:
    """Key of the records of one shard: the source's settings, the number of its first record, and
    where in the source it begins. Records are the same whatever the device.
    """
    inputs = {name: settings["dataset"][name] for name in DATASET}
    return canonical_hash({"dataset": inputs, "start": start, "row": position})


def stale(out: Path, settings: Mapping[str, Any], works: Sequence[Work]) -> str | None:
    """The first core step that some shard lacks, or has for other inputs than `settings` ask for;
    None where the whole index is of one kind.
    """
    inputs, device = CoreInputs(out, settings), settings["environment"]["device"]
    if [work.key("dataset", FILES["dataset"]) for work in works] != dataset_keys(settings, works):
        return "dataset"
    # in the order in which a step's inputs come to be
    steps: list[tuple[str, Sequence[Work], Callable[[Work], Table]]] = [
        ("latents", works, inputs.latents),
        ("features", works, inputs.features),
        ("losses", works, inputs.losses),
        (layout.FISHER_STEP, [inputs.curvature_folder], lambda _: inputs.fisher(works)),
        ("gradients", works, inputs.gradients),
    ]
    for step, folders, of in steps:
        files = FILES[step]
        if any(work.key(step, files) != key(step, device, of(work)) for work in folders):
            return step
    return None


def dataset_keys(settings: Mapping[str, Any], works: Sequence[Work]) -> list[str]:
    """Keys of the records of each shard, which begins where the one before it ended."""
    found, start, position = [], 0, 0
    for done in (work.done() for work in works):
        found.append(dataset(settings, start, position))
        start, position = start + done["records"], done["source"][1]
    return found
