"""EDGE: what lies beside an index's core steps: more rows, more curvature, more encoders.

`extras.json` of the index: {"steps": {step: {"index_hash", "command", "settings", "files"}},
"encoders": {name: {"path" or "hub_id" + "revision", "sha256", "files"}}}; `extras.json` of a shard
has the form of done.json. Adding an extra leaves `index_hash`, and so every saved answer, as it is;
an extra made with another model or other records counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribution import layout
from attribution.integrity import check_table, read_json

Table = dict[str, Any]


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
        own = _note(root / layout.EXTRAS)
        names = (layout.shard_name(number) for number in range(n_shards))
        shards = (_note(root / layout.SHARDS / name / layout.EXTRAS) for name in names)
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


def _note(path: Path) -> Table:
    return read_json(path) if path.is_file() else {}


def _mend(entry: Mapping[str, Any]) -> str:
    return f"Restore it, or make it again: `{entry['command']}`"
