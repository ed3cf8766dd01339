"""EDGE: what lies beside an index's core steps: more rows, more curvature, more encoders.

`extras.json` of the index: {"steps": {step: {"index_hash", "command", "settings", "files"}},
"encoders": {name: {"path" or "hub_id" + "revision", "sha256", "files"}}}; `extras.json` of a shard
has the form of done.json. Adding an extra leaves `index_hash`, and so every saved answer, as it is;
an extra made with another model or other records counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribution import layout
from attribution.integrity import check_table, read_json
from attribution.types import UserError

Table = dict[str, Any]
# What a step's entry has beside its files: in the index's note, and in a shard's.
_OF_INDEX, _OF_SHARD = ("index_hash", "command", "settings"), ("key",)


@dataclass(frozen=True)
class Extras:
    """The extras of the index at `root` with `index_hash`."""

    root: Path
    index_hash: str
    steps: Mapping[str, Table]
    encoders: Mapping[str, Table]
    shards: tuple[Mapping[str, Table], ...]

    @classmethod
    def read(cls, root: Path, index_hash: str, n_shards: int) -> Extras:
        """What is noted there; UserError for a note that cannot be read."""
        own = read_note(root / layout.EXTRAS)
        names = (layout.shard_name(number) for number in range(n_shards))
        folders = (root / layout.SHARDS / name for name in names)
        shards = (read_note(folder / layout.EXTRAS, of_shard=True) for folder in folders)
        steps, encoders = own.get("steps", {}), own.get("encoders", {})
        tables = tuple(note.get("steps", {}) for note in shards)
        return cls(root, index_hash, steps, encoders, tables)

    def settings(self, step: str) -> Table | None:
        """Settings of a step made for this very index; None without one."""
        found = self.steps.get(step)
        return found["settings"] if found and found["index_hash"] == self.index_hash else None

    def step_of(self, name: str) -> str | None:
        """The current step that made the file `name` (rows/trak.npy) in every shard, or None."""
        for step in self.steps:
            made = (name in shard.get(step, {}).get("files", {}) for shard in self.shards)
            if self.settings(step) is not None and self.shards and all(made):
                return step
        return None

    def encoder(self, name: str) -> Path | str | None:
        """A folder of the index or a hub id; None where there is no such encoder."""
        entry = self.encoders.get(name)
        if entry is None:
            return None
        return self.root / entry["path"] if "path" in entry else str(entry["hub_id"])

    def check(self, *, full: bool) -> None:
        """UserError naming the first damaged file and the command that makes it again."""
        for name, entry in self.encoders.items():
            if "path" in entry:
                mend = f"Restore it, or install the encoder {name} again"
                check_table(self.root / entry["path"], entry["files"], full=full, mend=mend)
        for step, entry in self.steps.items():
            check_table(self.root, entry.get("files", {}), full=full, mend=_mend(entry))
            for number, shard in enumerate(self.shards):
                folder = self.root / layout.SHARDS / layout.shard_name(number)
                files = shard.get(step, {}).get("files", {})
                check_table(folder, files, full=full, mend=_mend(entry))


def read_note(path: Path, *, of_shard: bool = False) -> Table:
    """An extras.json, empty where there is none; UserError for one that cannot be read or is not of
    the form above.
    """
    note = read_json(path) if path.is_file() else {}
    if fault := next(_faults(note, _OF_SHARD if of_shard else _OF_INDEX), ""):
        raise UserError(
            f"{path} is malformed: {fault}. Restore it, or delete it and make again what it noted"
        )
    return note


def _faults(note: Table, needed: tuple[str, ...]) -> Iterator[str]:
    """What about a note is not of its form."""
    for kind in ("steps", "encoders"):
        if not isinstance(note.get(kind, {}), dict):
            yield f"its {kind} are no object"
            return
    for name, entry in note.get("steps", {}).items():
        yield from _lacking(f"the step {name}", entry, needed)
    for name, entry in note.get("encoders", {}).items():
        yield from _lacking(f"the encoder {name}", entry, ("sha256",))
        if not isinstance(entry.get("path", entry.get("hub_id")), str):
            yield f"the encoder {name} has neither path nor hub_id"


def _lacking(what: str, entry: Any, needed: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"{what} is no object"
        return
    yield from (f"{what} has no {name}" for name in needed if name not in entry)
    files, settings = entry.get("files", {}), entry.get("settings", {})
    if not isinstance(settings, dict):
        yield f"the settings of {what} are no object"
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        yield f"the files of {what} are no table of sizes and hashes"


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("bytes"), int)
        and isinstance(value.get("sha256"), str)
    )


def _mend(entry: Mapping[str, Any]) -> str:
    return f"Restore it, or make it again: `{entry['command']}`"
