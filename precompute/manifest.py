"""The manifest in the making: settings from arguments, the index begun before, and defaults;
models; versions.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from attribution import layout
from attribution.cells import timestep_grid
from attribution.integrity import Entry, entry_of, read_json
from attribution.manifest import check_version, index_hash
from attribution.types import UserError
from precompute import keys, models
from precompute.options import DEFAULTS
from precompute.shards import Work, existing
from precompute.sources import open_source

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pyarrow", "pillow", "safetensors")
DAMPING = 0.1  # of the metric of the gradient rows, relative to the layer's mean F


def draft(out: Path) -> dict[str, Any]:
    """The manifest at `out`, finished or not; empty without one. UserError for another format
    version.
    """
    path = out / layout.MANIFEST
    if not path.is_file():
        return {}
    manifest = read_json(path)
    check_version(path, manifest)
    return manifest


def resolve(args: argparse.Namespace, old: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of this run: what was asked for, else what the index was begun with, else the
    default.
    """
    pipeline = models.pipeline(args, old)
    seed = _chosen(args.seed, old.get("noise", {}).get("seed"), "seed")
    steps = pipeline["n_train_timesteps"]
    settings = {
        "format_version": layout.FORMAT_VERSION,
        "complete": False,
        "models": [pipeline, *models.clip(args, old)],
        "dataset": _dataset(args, old),
        "n_records": old.get("n_records", 0),
        "noise": {"scheme": _scheme(), "seed": seed},
        "timesteps": _timesteps(args, old, steps),
        "curvature": {
            "weights": _chosen(args.weights, old.get("curvature", {}).get("weights"), "weights")
        },
        "gradients": _gradients(args, old, steps),
        "environment": environment(args, old),
    }
    command = {"data": str(args.data)} if args.data else old.get("command", {})
    return _unless_complete(settings, old, command)


def _unless_complete(
    settings: dict[str, Any], old: Mapping[str, Any], command: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the data is matters until the index is complete; a shipped manifest should not tell of
    this machine.
    """
    same_data = old.get("dataset", {}).get("sha256") == settings["dataset"]["sha256"]
    settings["n_records"] = settings["n_records"] if same_data else 0
    return settings if not command else {**settings, "command": dict(command)}


def _chosen(asked: Any, begun: Any, name: str) -> Any:
    return asked if asked is not None else begun if begun is not None else DEFAULTS[name]


def _scheme() -> int:
    from attribution.noise import SCHEME

    return SCHEME


def grid(steps: int, stride: int) -> list[int]:
    """The timesteps of base losses; UserError for a stride that leaves none."""
    if not 1 <= stride <= steps:
        raise UserError(f"--timestep-stride {stride}: choose 1 to {steps}")
    return list(timestep_grid(steps, stride))


def _timesteps(args: argparse.Namespace, old: Mapping[str, Any], steps: int) -> list[int]:
    if args.timestep_stride is None and old.get("timesteps"):
        return old["timesteps"]
    return grid(steps, _chosen(args.timestep_stride, None, "timestep_stride"))


def _gradients(args: argparse.Namespace, old: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """dim numbers a row, the mean over timesteps spread evenly: 125, 375, 625, 875 for four."""
    begun = old.get("gradients", {})
    dim = _chosen(args.gradient_dim, begun.get("dim"), "gradient_dim")
    count = _chosen(
        args.gradient_timesteps, len(begun.get("timesteps", ())) or None, "gradient_timesteps"
    )
    if dim < 1 or not 1 <= count <= steps:
        raise UserError("--gradient-dim and --gradient-timesteps are at least 1")
    return {
        "dim": dim,
        "metric": "diagonal",
        "damping": DAMPING,
        "timesteps": [int((i + 0.5) * steps / count) for i in range(count)],
    }


# ---------------------------------------------------------------------- data


def _dataset(args: argparse.Namespace, old: Mapping[str, Any]) -> dict[str, Any]:
    begun = old.get("dataset", {})
    names = {"id": args.dataset_id, "revision": args.dataset_revision, "licence": args.licence}
    dataset = {
        name: asked if asked is not None else begun.get(name) for name, asked in names.items()
    }
    if args.data is None and not begun:
        raise UserError(
            "--data is needed to begin an index: an image folder or Parquet files with captions"
        )
    if args.data is None or _is_own_shards(args.data, args.out):
        dataset |= {"sha256": begun.get("sha256")}
    else:
        source = open_source(args.data)
        dataset |= {"id": dataset["id"] or source.name, "sha256": source.sha256}
    for name in ("shard_size", "max_captions"):
        dataset[name] = _positive(name, _chosen(getattr(args, name), begun.get(name), name))
    for name in ("link_images", "skip_bad"):
        dataset[name] = bool(
            getattr(args, name) if getattr(args, name) is not None else begun.get(name)
        )
    counts = {k: begun[k] for k in ("train", "held_out", "captions") if k in begun}
    return dataset | (counts if begun.get("sha256") == dataset["sha256"] else {})


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"--{name.replace('_', '-')} {value}: at least 1")
    return value


def _is_own_shards(data: Path, out: Path) -> bool:
    """`--data` names the index itself, whose records have taken the place of the files they came
    from.
    """
    if data.resolve() != out.resolve() or not existing(out):
        return False
    return not any(
        [*data.glob("metadata.*"), *data.glob("*.parquet"), *data.glob("data/*.parquet")]
    )


# ---------------------------------------------------------------------- comparison


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Compared when a run goes on; anything else of the manifest may change freely."""
    dataset, environment_ = settings.get("dataset", {}), settings.get("environment", {})
    models = {f"{m['role']}.sha256": m["sha256"] for m in settings.get("models", [])}
    noise = {f"noise.{k}": v for k, v in settings.get("noise", {}).items()}
    gradients = {f"gradients.{k}": v for k, v in settings.get("gradients", {}).items()}
    return {
        **models,
        **{f"dataset.{name}": dataset.get(name) for name in keys.DATASET},
        **noise,
        "timesteps": settings.get("timesteps"),
        "curvature.weights": settings.get("curvature", {}).get("weights"),
        **gradients,
        "device": environment_.get("device"),
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name → (begun with, now) of the settings that differ; empty where nothing was begun."""
    if not old:
        return {}
    before, now = _compared(old), _compared(new)
    names = dict.fromkeys([*before, *now])
    return {n: (before.get(n), now.get(n)) for n in names if before.get(n) != now.get(n)}


def environment(args: argparse.Namespace, old: Mapping[str, Any]) -> dict[str, Any]:
    """Where the losses come from: device, dtype, versions, and the code's git revision.

    `--device auto` stays on the CPU where the index was begun on one. No batch size is by device.
    """
    from attribution.denoiser import choose_device

    begun = old.get("environment", {})
    stays = args.device == "auto" and begun.get("device") == "cpu"
    return {
        "device": "cpu" if stays else choose_device(args.device).type,
        "dtype": "float32",
        "batch_size": args.batch_size or begun.get("batch_size"),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


# ---------------------------------------------------------------------- completion


def final(out: Path, settings: Mapping[str, Any], works: Sequence[Work]) -> dict[str, Any] | None:
    """The finished manifest, or None while a step of some shard or the curvature is missing, or was
    done for other settings.
    """
    if not works or keys.stale(out, settings, works):
        return None
    whole = keys.CoreInputs(out, settings).curvature_folder
    names = keys.FILES[layout.FISHER_STEP]
    kept = {key: value for key, value in settings.items() if key != "command"}
    manifest = {
        **kept,
        "complete": True,
        "shards": [_shard_entry(work) for work in works],
        "files": {f"{layout.CURVATURE}/{name}": whole.entry(name) for name in names},
    }
    return {**manifest, "index_hash": index_hash(manifest)}


def _shard_entry(work: Work) -> dict[str, Any]:
    done = work.done()
    entries: list[Entry] = [e for step in done["steps"].values() for e in step["files"].values()]
    total = sum(entry["bytes"] for entry in entries)
    path = work.file(layout.DONE)
    return {
        "name": work.folder.name,
        "records": done["records"],
        "bytes": total,
        "done": entry_of(path),
    }
