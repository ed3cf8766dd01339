"""Shards: the unit of work and of resume. A file appears whole, under its name, or not at all.

Everything is written to `name.part`, flushed to the disk, then renamed. `done.json` names, for each
finished step of a folder, its inputs (`key`, a hash) and the size and SHA-256 of what it wrote: a
step is done when its key is the one asked for and all of its files are there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from attribution import layout
from attribution.extras import read_note
from attribution.integrity import Entry, damage, entry_of, read_json
from attribution.types import UserError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` only once it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The rename itself has to reach the disk too; not every system lets one open a folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Indented JSON, the same bytes for the same value."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_npy(path: Path, array: np.ndarray) -> None:
    """A .npy file of a plain numeric array."""
    with replacing(path) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


@dataclass(frozen=True)
class Work:
    """A folder of finished and unfinished work: `shards/00000` and its like."""

    folder: Path

    def file(self, name: str) -> Path:
        """One of its files."""
        return self.folder / name

    def done(self) -> dict[str, Any]:
        """The contents of done.json; no steps before the first one, or where it is damaged."""
        try:
            return read_json(self.file(layout.DONE))
        except UserError:
            return {"steps": {}}

    def extras(self) -> dict[str, Any]:
        """The contents of extras.json, done.json's like for steps beside the core ones."""
        try:
            return {"steps": {}} | read_note(self.file(layout.EXTRAS), of_shard=True)
        except UserError:
            return {"steps": {}}

    def step(self, step: str) -> dict[str, Any] | None:
        """What done.json, or extras.json for a step beside the core, says of a step, or None."""
        note = self.done() if _core(step) else self.extras()
        return note["steps"].get(step)

    def entry(self, name: str) -> Entry:
        """Size and SHA-256 of a finished file, from done.json."""
        steps = self.extras()["steps"] | self.done()["steps"]
        for step in steps.values():
            if name in step["files"]:
                return step["files"][name]
        raise KeyError(name)

    def key(self, step: str, files: Sequence[str] = ()) -> str | None:
        """The key of a finished step; None without one, or where it did not write all of `files`
        yet."""
        recorded = self.step(step)
        if recorded is None or not set(files) <= recorded["files"].keys():
            return None
        return str(recorded["key"])

    def is_done(
        self, step: str, key: str, *, files: Sequence[str] = (), full: bool = False
    ) -> bool:
        """Whether a step was finished with these inputs, wrote all of `files` and whatever it wrote
        is intact (full: hashed).
        """
        recorded = self.step(step)
        if recorded is None or self.key(step, files) != key:
            return False
        written = recorded["files"].items()
        return all(damage(self.file(name), entry, full=full) is None for name, entry in written)

    def finish(self, step: str, key: str, files: Sequence[str], **facts: Any) -> None:
        """Record that `files` are complete; `facts` join the head of done.json.

        What the step wrote before and writes no longer is removed.
        """
        core = _core(step)
        note = (self.done() if core else self.extras()) | facts
        tables = {name: entry_of(self.file(name)) for name in sorted(files)}
        steps: Mapping[str, Any] = note["steps"] | {step: {"key": key, "files": tables}}
        name = layout.DONE if core else layout.EXTRAS
        write_json(self.file(name), note | {"steps": dict(sorted(steps.items()))})
        for old in note["steps"].get(step, {}).get("files", {}).keys() - tables.keys():
            self.file(old).unlink(missing_ok=True)

    def forget(self, step: str) -> None:
        """Let a step beside the core count as not done here."""
        note = self.extras()
        if note["steps"].pop(step, None) is not None:
            write_json(self.file(layout.EXTRAS), note)

    def sweep(self) -> None:
        """Remove what a killed run left half-written."""
        for part in self.folder.rglob("*.part"):
            part.unlink()


def _core(step: str) -> bool:
    """Whether a step is noted in done.json, which the manifest vouches for, not in extras.json."""
    return step in layout.CORE_STEPS or step == layout.FISHER_STEP


def shard(root: Path, number: int) -> Work:
    """Folder `shards/<number>` of an index."""
    return Work(root / layout.SHARDS / layout.shard_name(number))


def existing(root: Path) -> list[Work]:
    """The shards that have a done.json, in order, stopping at the first gap."""
    found: list[Work] = []
    while (work := shard(root, len(found))).file(layout.DONE).is_file():
        found.append(work)
    return found
