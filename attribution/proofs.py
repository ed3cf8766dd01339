"""EDGE: proofs by counterfactual: what a picture became when the records that a method found were
left out, and the model trained anew; beside it, as many records at random.

    proofs/<slug>/proof.json      query, method, K, losses, ids of the records left out, loss curves
    proofs/<slug>/query.png       the picture; found.png, control.png: drawn again without those
    controls/<K>/control.json     K random records, loss curve of the model trained without them
    controls/<K>/unet/            that model, for all proofs of this K

A proof names the index it was made with, and is refused by any other; a control is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from attribution import layout
from attribution.images import read_image
from attribution.report import json_text, new_folder, png_bytes
from attribution.types import Query, UserError

PROOF, QUERY, RETRAINING, PICTURE = "proof.json", "query.png", "retraining.json", "picture.png"
CONTROL, UNET, UNET_CONFIG = "control.json", "unet", "config.json"
SIDES = ("found", "control")
Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Retraining:
    """A model trained anew without some records, seen through one picture.

    without: ids of the records left out. image: the picture drawn again from the same noise and
    prompt. loss: L(ẑ) of the new model. change: mean squared difference of the pixels, on [0, 1].
    curve: (optimiser steps, training loss). seconds: of the training.
    """

    without: tuple[str, ...]
    image: Image.Image
    loss: float
    change: float
    curve: Curve = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Proof:
    """A picture with the records a method found left out, and with as many random ones left out.

    method: by name. loss: L(ẑ) of the model as it is. slug: names the folder of a saved one.
    """

    query: Query
    method: str
    loss: float
    found: Retraining
    control: Retraining
    slug: str = ""

    @property
    def k(self) -> int:
        """How many records were left out."""
        return len(self.found.without)

    def gain(self, side: Retraining) -> float:
        """Relative loss increase: how much worse the new model is at the picture."""
        return side.loss / self.loss - 1.0


@dataclass(frozen=True)
class Control:
    """A model trained anew without some random records, kept with its index.

    without: their ids. unet: its folder. curve, seconds: as of a Retraining.
    """

    without: tuple[str, ...]
    unet: Path
    curve: Curve
    seconds: float


# ---------------------------------------------------------------------------------- one retraining


def write_retraining(folder: Path, made: Retraining, loss_before: float) -> None:
    """Into an existing folder; complete when retraining.json is there."""
    made.image.save(folder / PICTURE)
    _write(folder / RETRAINING, {**_facts(made), "loss_before": loss_before})


def read_retraining(folder: Path) -> tuple[Retraining, float]:
    """(what was written, the loss of the model as it is); UserError where there is nothing."""
    try:
        facts = json.loads((folder / RETRAINING).read_text(encoding="utf-8"))
        return _retraining(facts, folder / PICTURE), float(facts["loss_before"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"the retraining in {folder} is missing or damaged") from error


# ---------------------------------------------------------------------------------- saved proofs


def save_proof(folder: str | Path, proof: Proof, index_hash: str) -> Path:
    """Write a proof; UserError if the folder is not empty."""
    query, folder = proof.query, Path(folder)
    about = {
        "index_hash": index_hash,
        "query": {
            "prompt": query.prompt,
            "seed": query.seed,
            "steps": query.steps,
            "guidance": query.guidance,
            "scheduler": query.scheduler,
        },
        "method": proof.method,
        "loss": proof.loss,
        **{side: _facts(getattr(proof, side)) for side in SIDES},
    }
    with new_folder(folder) as part:
        (part / QUERY).write_bytes(png_bytes(query.image))
        for side in SIDES:
            (part / f"{side}.png").write_bytes(png_bytes(getattr(proof, side).image))
        (part / PROOF).write_text(json_text(about), encoding="utf-8")
    return folder


def load_proof(folder: str | Path, index_hash: str) -> Proof:
    """Read a proof back; UserError when it is missing, damaged, or of another index."""
    folder = Path(folder)
    try:
        about = json.loads((folder / PROOF).read_text(encoding="utf-8"))
        if about["index_hash"] != index_hash:
            sides = f"index {str(about['index_hash'])[:12]}, this is {index_hash[:12]}"
            raise UserError(f"the proof {folder.name} was made with {sides}: {_MEND}")
        query = Query(image=read_image(folder / QUERY), **about["query"])
        found, control = (_retraining(about[side], folder / f"{side}.png") for side in SIDES)
        return Proof(query, about["method"], float(about["loss"]), found, control, folder.name)
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, UserError) and "was made with" in str(error):
            raise
        raise UserError(f"the proof {folder.name} is missing or damaged: {_MEND}") from None


def control_folder(root: Path, k: int) -> Path:
    """Where the index at `root` keeps its control of K records."""
    return root / layout.CONTROLS / str(k)


def save_control(control: Control, index_hash: str) -> None:
    """Write what tells of a control beside its UNet, which is there: then it is complete."""
    about = {
        "index_hash": index_hash,
        "without": control.without,
        "curve": control.curve,
        "seconds": control.seconds,
    }
    _write(control.unet.parent / CONTROL, about)


def load_control(root: Path, without: tuple[str, ...], index_hash: str) -> Control | None:
    """The control of these records that an index keeps; None where there is none, or one of other
    records or of another index."""
    folder = control_folder(root, len(without))
    try:
        about = json.loads((folder / CONTROL).read_text(encoding="utf-8"))
        same = about["index_hash"] == index_hash and tuple(about["without"]) == without
        if not same or not (folder / UNET / UNET_CONFIG).is_file():
            return None
        return Control(without, folder / UNET, _curve(about["curve"]), float(about["seconds"]))
    except (OSError, KeyError, ValueError, TypeError):
        return None


def list_proofs(folder: str | Path) -> list[str]:
    """Slugs of the proofs below a folder, sorted."""
    return sorted(path.parent.name for path in Path(folder).glob(f"*/{PROOF}"))


_MEND = "run python -m precompute proofs to make it again"


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json_text(facts), encoding="utf-8")
    part.replace(path)


def _facts(made: Retraining) -> dict[str, Any]:
    facts = asdict(made)
    del facts["image"]
    return facts


def _curve(points: Iterable[Any]) -> Curve:
    return tuple((int(step), float(loss)) for step, loss in points)


def _retraining(facts: Mapping[str, Any], picture: Path) -> Retraining:
    return Retraining(
        without=tuple(facts["without"]),
        image=read_image(picture),
        loss=float(facts["loss"]),
        change=float(facts["change"]),
        curve=_curve(facts["curve"]),
        seconds=float(facts["seconds"]),
    )
