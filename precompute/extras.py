"""Extras of a finished index: steps and encoders beside the core; see attribution/extras.py."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attribution import layout
from attribution.extras import read_note
from attribution.integrity import damage, entry_of, model_files
from attribution.types import UserError
from precompute import models
from precompute.shards import existing, write_json


def begin(
    out: Path,
    manifest: Mapping[str, Any],
    step: str,
    settings: Mapping[str, Any],
    command: str,
    *,
    rebuild: bool = False,
) -> None:
    """Note that `step` is being made with `settings` (JSON values) for the finished index at `out`.

    command: arguments of `python -m precompute` that make it. UserError where the index is not
    finished, or the step was begun with other settings and `rebuild` is not set.
    """
    if not manifest.get("complete"):
        raise UserError(f"{out} is not finished: `python -m precompute index --out {out}` first")
    note = _read(out)
    old, wanted = note["steps"].get(step, {}), dict(settings)
    begun = (manifest["index_hash"], wanted)
    goes_on = (old.get("index_hash"), old.get("settings")) == begun
    if old and old["settings"] != wanted and not rebuild:
        differ = {
            name: (old["settings"].get(name), wanted.get(name))
            for name in dict.fromkeys([*old["settings"], *wanted])
            if old["settings"].get(name) != wanted.get(name)
        }
        sides = "; ".join(f"{name}: begun with {a}, now {b}" for name, (a, b) in differ.items())
        raise UserError(
            f"{step} of {out} was begun with other settings ({sides}). "
            "Repeat those, or add --rebuild to remake it"
        )
    entry = {
        "index_hash": manifest["index_hash"],
        "command": f"python -m precompute {command} --out {out}",
        "settings": wanted,
        "files": old.get("files", {}) if goes_on else {},
    }
    if old and not goes_on:  # what is there must not pass for what is being made
        _forget_rows(out, step)
    _write(out, note | {"steps": note["steps"] | {step: entry}})


def encoder(out: Path, name: str) -> dict[str, Any] | None:
    """What is noted of an encoder put beside the index's models; None without one."""
    found: dict[str, Any] | None = _read(out)["encoders"].get(name)
    return found


def _forget_rows(out: Path, step: str) -> None:
    for work in existing(out):
        note = work.extras()
        if note["steps"].pop(step, None) is not None:
            write_json(work.file(layout.EXTRAS), note)


def add_files(out: Path, step: str, names: Sequence[str]) -> None:
    """Note complete files of a begun step that belong to no shard; names relative to `out`."""
    note = _read(out)
    entry = note["steps"][step]
    files = entry["files"] | {name: entry_of(out / name) for name in names}
    _write(out, note | {"steps": note["steps"] | {step: entry | {"files": files}}})


def forget_damaged(out: Path, step: str) -> None:
    """Drop the notes of a step's files that are missing or damaged, which no index opens with."""
    note = _read(out)
    entry = note["steps"].get(step)
    if entry is None:
        return
    files = {n: e for n, e in entry["files"].items() if not damage(out / n, e, full=True)}
    if files != entry["files"]:
        _write(out, note | {"steps": note["steps"] | {step: entry | {"files": files}}})


def install_encoder(
    out: Path, name: str, model: str | Path, revision: str | None = None
) -> Path | str:
    """Copy the encoder in the folder `model` to encoders/<name>, or note a hub id and its revision.

    Returns the folder of the index, or the hub id. UserError when there is no such model.
    """
    folder, hub = models.located(str(model), revision, pipeline=False)
    place = f"{layout.ENCODERS}/{name}"
    entry = models.entry(name, folder, None if hub else place) | hub
    source = entry.pop("_from", None)
    if source is not None and source.resolve() != (out / place).resolve():
        _copy(source, out / place)
    note = _read(out)
    entry.pop("role")
    _write(out, note | {"encoders": note["encoders"] | {name: entry}})
    return entry["hub_id"] if hub else out / place


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in model_files(source):
        shutil.copyfile(source / name, part / name)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def _read(out: Path) -> dict[str, Any]:
    return {"steps": {}, "encoders": {}} | read_note(out / layout.EXTRAS)


def _write(out: Path, note: Mapping[str, Any]) -> None:
    steps = dict(sorted(note["steps"].items()))
    write_json(
        out / layout.EXTRAS, {"steps": steps, "encoders": dict(sorted(note["encoders"].items()))}
    )
