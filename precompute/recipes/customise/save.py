"""A customised model on disk: a pipeline folder like any other, and customise.json beside it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from attribution import layout
from attribution.denoiser import Denoiser
from attribution.integrity import model_files
from precompute.shards import write_json

NOTE = "customise.json"
CHANGED = ("tokenizer", "text_encoder", "unet")


def save_pipeline(denoiser: Denoiser, source: Path, out: Path, note: Mapping[str, Any]) -> None:
    """Write the customised model to `out`: what did not change is copied from the folder `source`
    byte for byte, the rest saved in the precision it has there. `out` appears whole or not at all.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in _unchanged(source):
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, part / name)
    denoiser.tokenizer.save_pretrained(part / "tokenizer")
    for folder in ("text_encoder", "unet"):
        module = copy.deepcopy(getattr(denoiser, folder)).to("cpu", stored_dtype(source / folder))
        module.to(memory_format=torch.contiguous_format).save_pretrained(part / folder)
    write_json(part / NOTE, dict(note))
    part.rename(out)


def _unchanged(source: Path) -> list[Path]:
    generation = Path(layout.GENERATION)
    extra = [generation] if (source / generation).is_file() else []
    return [name for name in [*model_files(source), *extra] if name.parts[0] not in CHANGED]


def stored_dtype(folder: Path) -> torch.dtype:
    """The floating-point type of the weights in `folder`; float32 where there are none."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118, not a dict
                dtype = file.get_tensor(name).dtype
                if dtype.is_floating_point:
                    return dtype
    return torch.float32
