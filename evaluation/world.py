"""EDGE: what is evaluated. One folder with records, model, CLIP and (for the verbs on answers) an
index.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribution import defaults, layout
from attribution.integrity import canonical_hash, model_table, read_json, table_hash
from attribution.types import UserError
from evaluation.data import Records, data_hash, load_records
from evaluation.results import Results

if TYPE_CHECKING:
    from attribution.denoiser import Denoiser
    from attribution.engine import Engine
    from attribution.features import ClipEncoder

CLIP = "clip"


@dataclass
class World:
    """Everything is opened on first use: a verb on the model needs no index."""

    root: Path
    device: str = "auto"

    @cached_property
    def records(self) -> Records:
        """Every record with its pixels."""
        return load_records(self.root)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The embedded model in float32."""
        from attribution.denoiser import Denoiser

        return Denoiser.load(self.root / layout.MODEL, device=self.device)

    @cached_property
    def clip(self) -> ClipEncoder:
        """The embedded CLIP."""
        from attribution.features import ClipEncoder

        return ClipEncoder.load(self.root / CLIP, self.denoiser.device)

    @cached_property
    def engine(self) -> Engine:
        """The index with its model, as the page and the command line open it."""
        from attribution.engine import Engine

        return Engine(self.root, self.device)

    @cached_property
    def index_hash(self) -> str | None:
        """The index's hash as its manifest states it; None where there is no index yet."""
        path = self.root / layout.MANIFEST
        return read_json(path).get("index_hash") if path.is_file() else None

    @cached_property
    def pipeline_hash(self) -> str:
        """What generated pictures depend on: the bytes of the pipeline; UserError without one."""
        folder = self.root / layout.MODEL
        if not folder.is_dir():
            raise UserError(f"no model at {folder}: `python -m precompute train all` makes it")
        return table_hash(model_table(folder))

    @cached_property
    def model_hash(self) -> str:
        """What the model verbs depend on: the bytes of pipeline and CLIP, and the data's pixels."""
        folder = self.root / CLIP
        clip = table_hash(model_table(folder)) if folder.is_dir() else ""
        return canonical_hash([self.pipeline_hash, clip, data_hash(self.records)])

    @cached_property
    def sampling(self) -> tuple[int, float]:
        """(steps, guidance scale) recommended for the model, as the Engine would use."""
        found: dict[str, Any] = {}
        if (self.root / layout.MANIFEST).is_file():
            found = read_json(self.root / layout.MANIFEST).get("generation") or {}
        beside = self.root / layout.MODEL / layout.GENERATION
        if not found and beside.is_file():
            found = read_json(beside)
        return int(found.get("steps", defaults.STEPS)), float(
            found.get("guidance", defaults.GUIDANCE)
        )

    def results(
        self, args: argparse.Namespace, verb: str, settings: Mapping[str, Any], *, of: str = "index"
    ) -> Results:
        """The verb's run on this world; `of` names what its figures depend on: 'index', 'model' or
        'data'.
        """
        subject = {"index": self._index, "model": lambda: self.model_hash, "data": self._data}[of]()
        results = Results.open(args.results, verb, subject, settings)
        results.head |= {"index_hash": self.index_hash, "module": args.module}
        return results

    def _index(self) -> str:
        if self.index_hash is None:
            raise UserError(f"no index at {self.root}: `python -m precompute index` makes it")
        return self.index_hash

    def _data(self) -> str:
        return data_hash(self.records)


def world_of(args: argparse.Namespace) -> World:
    """The world that a verb's arguments name; UserError when the folder is not there."""
    if not args.index.is_dir():
        raise UserError(f"no folder {args.index}")
    return World(args.index, args.device)
