"""manifest.json: what an index was made of. Read, refused when it does not fit, and summed up in
one hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attribution import layout
from attribution.integrity import (
    canonical_hash,
    check_table,
    damage,
    read_json,
    table_hash,
)
from attribution.types import UserError

Manifest = dict[str, Any]
_NEEDED = ("models", "dataset", "n_records", "noise", "timesteps", "shards", "files")
# Up to here every byte is hashed on opening (some 0.5 s); above, sizes only unless asked for.
FULL_BELOW_BYTES = 300_000_000


def make_command(root: Path) -> str:
    """The command that resumes or mends the index at `root`."""
    return f"python -m precompute index --out {root}"


def index_hash(manifest: Mapping[str, Any]) -> str:
    """One hash of all that answers depend on: model, data, noise, grid and every other file."""
    models = {model["role"]: model["sha256"] for model in manifest["models"]}
    parts = {
        key: manifest[key]
        for key in ("format_version", "n_records", "noise", "timesteps", "shards")
    }
    return canonical_hash({**parts, "models": models, "files": table_hash(manifest["files"])})


def read_manifest(root: Path) -> Manifest:
    """The manifest of a complete index of a known version; UserError with the way out otherwise."""
    path = root / layout.MANIFEST
    make = f"{make_command(root)} --model DIR_OR_HUB_ID --data DIR"
    if not root.is_dir():
        raise UserError(f"no index at {root}: there is no such folder; `{make}` makes one")
    if not path.is_file():
        raise UserError(f"no index at {root}: {layout.MANIFEST} is missing; `{make}` makes one")
    manifest = read_json(path)
    check_version(path, manifest)
    if not manifest.get("complete"):
        raise UserError(f"the index at {root} is not finished; `{make_command(root)}` resumes it")
    lacking = [name for name in _NEEDED if name not in manifest]
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}; `{make_command(root)}` mends it")
    return manifest


def check_version(path: Path, manifest: Mapping[str, Any]) -> None:
    """UserError for a manifest of another format version, both sides named."""
    version = manifest.get("format_version")
    if version == layout.FORMAT_VERSION:
        return
    newer = isinstance(version, int) and version > layout.FORMAT_VERSION
    way = "update Whence" if newer else f"make it again: `{make_command(path.parent)} --rebuild`"
    raise UserError(
        f"{path} has format version {version!r}, "
        f"this program reads version {layout.FORMAT_VERSION}: {way}"
    )


def model_of(manifest: Mapping[str, Any], role: str = "pipeline") -> dict[str, Any] | None:
    """The manifest's entry of a model: role "pipeline" or "clip"."""
    return next((model for model in manifest["models"] if model["role"] == role), None)


def total_bytes(manifest: Mapping[str, Any]) -> int:
    """Bytes of everything the manifest vouches for."""
    own = [model["files"] for model in manifest["models"] if "path" in model]
    tables = [manifest["files"], *own]
    shards = sum(shard["bytes"] for shard in manifest["shards"])
    return shards + sum(entry["bytes"] for table in tables for entry in table.values())


def check_files(root: Path, manifest: Mapping[str, Any], *, full: bool) -> None:
    """UserError naming the first file that is missing, truncated or (with `full`) corrupt, or
    another model's.
    """
    found, stated = index_hash(manifest), manifest.get("index_hash")
    if stated != found:
        raise UserError(
            f"{root / layout.MANIFEST} was changed by hand: its parts give {found[:12]}, "
            f"it states {str(stated)[:12]}. {_mend(root)}"
        )
    for model in manifest["models"]:
        _check_model(root, model, full)
    check_table(root, manifest["files"], full=full, mend=_mend(root))
    for shard in manifest["shards"]:
        _check_shard(root, shard, full)


def _mend(root: Path) -> str:
    return f"Restore it, or make it again: `{make_command(root)}`"


def _check_model(root: Path, model: Mapping[str, Any], full: bool) -> None:
    """A folder of the index is compared file by file; a hub model is loaded at its revision, a
    commit, which is of no other files.
    """
    if "path" not in model:
        return
    folder = root / model["path"]
    if not folder.is_dir():
        raise UserError(f"the model {folder} is missing. {_mend(root)}")
    wrong = [
        f"{folder / name} {trouble}"
        for name, entry in model["files"].items()
        if (trouble := damage(folder / name, entry, full=full))
    ]
    if wrong:
        raise UserError(
            f"the model is not the one this index was made with: {wrong[0]}. "
            f"Restore the model, or make the index of this one: `{make_command(root)} --rebuild`"
        )


def _check_shard(root: Path, shard: Mapping[str, Any], full: bool) -> None:
    folder = root / layout.SHARDS / shard["name"]
    check_table(folder, {layout.DONE: shard["done"]}, full=True, mend=_mend(root))
    for step in read_json(folder / layout.DONE)["steps"].values():
        check_table(folder, step["files"], full=full, mend=_mend(root))
