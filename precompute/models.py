"""The models of an index: found in a folder or on the hub, hashed, copied into the index."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attribution import layout
from attribution.integrity import entry_of, model_files, model_table, read_json, table_hash
from attribution.manifest import model_of
from attribution.pipelines import latent_side
from attribution.quiet import quiet_loading
from attribution.types import UserError

CLIP = "clip"
# Older hub models have no other weights (openai/clip-vit-base-patch32, facebook/dino-vitb16);
# transformers reads tensors from them and runs nothing. They stay on the hub.
PICKLED = "pytorch_model.bin"


def pipeline(args: argparse.Namespace, old: Mapping[str, Any]) -> dict[str, Any]:
    begun = model_of({"models": old.get("models", [])})
    if args.model is None:
        if begun is None:
            raise UserError(
                "--model is needed to begin an index: a diffusers pipeline folder or a hub id"
            )
        own = args.out / layout.MODEL
        return entry("pipeline", own, layout.MODEL) | _facts(own) if "path" in begun else begun
    folder, hub = located(args.model, args.revision)
    return entry("pipeline", folder, None if hub else layout.MODEL) | hub | _facts(folder)


def clip(args: argparse.Namespace, old: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The CLIP for features: asked for, begun with, or lying beside the model; none is an index
    without CLIP rows.
    """
    begun = model_of({"models": old.get("models", [])}, CLIP)
    if args.clip is not None:
        folder, hub = located(args.clip, None, pipeline=False)
        return [entry(CLIP, folder, None if hub else CLIP) | hub]
    places = [args.out / CLIP, Path(args.model).parent / CLIP if args.model else args.out / CLIP]
    found = next((place for place in places if (place / "config.json").is_file()), None)
    if found is not None:
        return [entry(CLIP, found, CLIP)]
    return [begun] if begun else []


def entry(role: str, folder: Path, path: str | None) -> dict[str, Any]:
    """What a manifest says of the model in `folder`; `path` is its place in the index, None for a
    hub model. UserError without weights, and for pickled ones in a folder: they could run anything.
    """
    table = model_table(folder)
    there = any(name.endswith(".safetensors") for name in table)
    if path is None and not there and (folder / PICKLED).is_file():
        table, there = table | {PICKLED: entry_of(folder / PICKLED)}, True
    if not there:
        raise UserError(f"no weights in {folder}: expected a saved model with .safetensors files")
    place = {"path": path, "_from": folder} if path else {}
    return {"role": role, **place, "sha256": table_hash(table), "files": table}


def located(
    model: str, revision: str | None, *, pipeline: bool = True
) -> tuple[Path, dict[str, Any]]:
    """(local folder, {} or {hub_id, revision}) of a folder or hub id, downloaded if need be."""
    if Path(model).is_dir():
        return Path(model), {}
    if model.count("/") != 1 or model.startswith((".", "/")):
        raise UserError(f"no model at {model}: expected a folder or a hub id")
    try:
        folder = Path(_downloaded(model, revision, pipeline))
    except Exception as error:  # the hub's clients raise many kinds
        raise UserError(f"cannot get {model} from the hub: {str(error).splitlines()[0]}") from None
    return folder, {"hub_id": model, "revision": folder.name}


def _downloaded(model: str, revision: str | None, pipeline: bool) -> str:
    if pipeline:
        with quiet_loading():
            from diffusers.pipelines.pipeline_utils import DiffusionPipeline

        return str(DiffusionPipeline.download(model, revision=revision, use_safetensors=True))
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.safetensors"]
    folder = snapshot_download(model, revision=revision, allow_patterns=patterns)
    if not any(Path(folder).glob("*.safetensors")):
        folder = snapshot_download(model, revision=revision, allow_patterns=[*patterns, PICKLED])
    return folder


def _facts(folder: Path) -> dict[str, Any]:
    """prediction_type, resolution (px), latent shape and training timesteps, from the saved
    configurations.
    """
    unet, vae, scheduler = (
        read_json(folder / name)
        for name in ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
    )
    side = latent_side(unet.get("sample_size"))
    scale = 2 ** (len(vae.get("block_out_channels", (0,))) - 1)
    return {
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
        "resolution": side * scale,
        "latent_shape": [unet.get("in_channels", 4), side, side],
        "n_train_timesteps": scheduler.get("num_train_timesteps", 1000),
    }


def install(model: dict[str, Any], out: Path) -> None:
    """Copy a local model into the index, unless it is there already; what it was copied from is
    then forgotten.
    """
    source = model.pop("_from", None)
    if source is None or source.resolve() == (target := out / model["path"]).resolve():
        return
    if target.is_dir() and table_hash(model_table(target)) == model["sha256"]:
        return
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    generation = Path(layout.GENERATION)  # recommended sampling settings, where there are any
    extra = [generation] if (source / generation).is_file() else []
    for name in [*model_files(source), *extra]:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, part / name)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
