"""One run of the index's verbs: settings resolved and compared, models in place, steps done shard
by shard.

The manifest is written first, as a draft with `complete: false`, and completed last: a killed run
leaves an index that resumes with `python -m precompute index --out DIR` and that no one can open by
mistake.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from attribution import layout
from attribution.cells import samples_at_once
from attribution.integrity import check_table, damage
from attribution.manifest import make_command
from attribution.types import UserError
from precompute import extras, keys, models, timings
from precompute import manifest as manifests
from precompute.shards import Work, existing, write_json

Make = Callable[[Work, tqdm], Sequence[str]]
Inputs = Callable[[Work], dict[str, Any]]


class Build:
    """A run: `settings` is the manifest in the making, `out` the index."""

    def __init__(self, args: argparse.Namespace, settings: dict[str, Any]) -> None:
        """Use `Build.begin`, or `Build.beside` for a step beside the core."""
        self.out: Path = args.out
        self.settings = settings
        self.args = args
        self._finished: set[str] = set()

    @classmethod
    def begin(cls, args: argparse.Namespace) -> Build:
        """Resolve settings against what `--out` was begun with; UserError, both sides named, where
        they differ.
        """
        old = manifests.draft(args.out)
        settings = manifests.resolve(args, old)
        if differences := manifests.differences(old, settings):
            if not args.rebuild:
                raise UserError(_refusal(args.out, differences))
            _forget(args.out, differences)
        args.out.mkdir(parents=True, exist_ok=True)
        _distrust(args.out, old)
        for model in settings["models"]:
            models.install(model, args.out)
        job = cls(args, settings)
        job.write_draft()
        return job

    @classmethod
    def beside(cls, args: argparse.Namespace) -> Build:
        """A run of a step beside the core of the finished index at `--out`, whose manifest, models
        and shards stay as they are whatever --rebuild says: that is about the step alone.

        UserError where the index is not finished or damaged, or where settings of its core are
        asked for that it was not made with. The device may be another than the core's.
        """
        out, old = args.out, manifests.draft(args.out)
        if not old.get("complete"):
            raise UserError(f"{out} is not finished: `{make_command(out)}` first")
        settings = manifests.resolve(args, old)
        differences = manifests.differences(old, settings)
        differences.pop("device", None)
        if differences:
            raise UserError(_refusal(out, differences, _CORE_STAYS))
        mend = f"`{make_command(out)}` mends it"
        for shard in old["shards"]:
            folder = out / layout.SHARDS / shard["name"]
            check_table(folder, {layout.DONE: shard["done"]}, full=True, mend=mend)
        return cls(args, settings)

    # ------------------------------------------------------------------ steps

    def first(self, build: Callable[[Build], None]) -> None:
        """Run another step this one needs, once per run."""
        if build.__module__ not in self._finished:
            build(self)
            self._finished.add(build.__module__)

    def over_shards(self, step: str, inputs: Inputs, make: Make) -> None:
        """Call `make(shard, bar)` for each shard whose `step` was not done with these `inputs`, and
        record its files.
        """
        core = step in layout.CORE_STEPS
        if not core:
            self._forget_stale(step, inputs)
        with tqdm(total=self.n_records, desc=step, unit="record") as bar:
            for work in self.shards():
                key = self.key(step, inputs(work))
                if work.is_done(step, key, files=keys.FILES.get(step, ()), full=True):
                    bar.update(work.done()["records"])
                    continue
                if core:
                    self.reopen()
                work.sweep()
                with timings.timed(self.out, step, work.done()["records"]):
                    files = make(work, bar)
                work.finish(step, key, files)

    def _forget_stale(self, step: str, inputs: Inputs) -> None:
        """Shards made from other inputs count as not made: a run killed half-way must not leave an
        index whose shards were made in two ways.
        """
        for work in self.shards():
            recorded = work.step(step)
            if recorded is not None and recorded["key"] != self.key(step, inputs(work)):
                work.forget(step)

    def key(self, step: str, inputs: dict[str, Any]) -> str:
        """Hash of all that a step's bytes depend on."""
        return keys.key(step, self.device, inputs)

    @property
    def inputs(self) -> keys.CoreInputs:
        """What the core steps depend on, by the settings of this run."""
        return keys.CoreInputs(self.out, self.settings)

    # ------------------------------------------------------------------ extras

    def extra(self, step: str, settings: dict[str, Any], command: str | None = None) -> None:
        """Begin a step beside the core, of a finished index: its settings join extras.json.

        command: arguments of `python -m precompute` that make it, by default the step's name.
        UserError where the index is unfinished or the step was begun with other settings.
        """
        manifest = manifests.draft(self.out)
        rebuild = bool(self.args.rebuild)
        extras.begin(self.out, manifest, step, settings, command or step, rebuild=rebuild)

    def install_encoder(
        self, name: str, model: str | Path, revision: str | None = None
    ) -> Path | str:
        """Put an encoder (folder or hub id) beside the index's models; where to load it from."""
        return extras.install_encoder(self.out, name, model, revision)

    # ------------------------------------------------------------------ records

    def data_path(self) -> Path:
        """The training set; UserError when the run was not told and the index no longer knows."""
        path = self.args.data or self.settings.get("command", {}).get("data")
        if path is None:
            raise UserError(
                f"records of {self.out} are missing or damaged: name their source with --data"
            )
        return Path(path)

    def has_records(self) -> bool:
        """Whether every shard's records are written, of these settings and intact; then the
        training set itself is not needed.
        """
        works = self.shards()
        stated = self.settings.get("n_records")
        written = sum(work.done().get("records", 0) for work in works)
        wanted = zip(works, keys.dataset_keys(self.settings, works), strict=True)
        files = keys.FILES["dataset"]
        whole = all(work.is_done("dataset", key, files=files, full=True) for work, key in wanted)
        return bool(works) and stated == written and whole

    def records_written(self, count: int) -> None:
        """Note the number of records, by split, and of captions; forget shards beyond the last."""
        splits: Counter[str] = Counter()
        kept = []
        for work in existing(self.out):
            if sum(w.done()["records"] for w in kept) >= count:
                shutil.rmtree(work.folder)
                continue
            kept.append(work)
            splits.update(
                pq.read_table(work.file(layout.RECORDS), columns=["split"])["split"].to_pylist()
            )
        facts = {"train": splits["train"], "held_out": splits["held-out"]}
        facts["captions"] = max(work.done()["captions"] for work in kept)
        self.settings["dataset"] = {**self.settings["dataset"], **facts}
        self.settings["n_records"] = count
        self.write_draft()

    def shards(self) -> list[Work]:
        """The shards whose records are written."""
        return [work for work in existing(self.out) if work.step("dataset")]

    @property
    def n_records(self) -> int:
        """Records of the index, once the dataset step is done."""
        return int(self.settings["n_records"])

    # ------------------------------------------------------------------ model

    @cached_property
    def denoiser(self) -> Any:
        """The model as its folder holds it, computing in float32."""
        import torch

        from attribution.denoiser import Denoiser

        torch.backends.cudnn.allow_tf32 = False  # scores are tiny differences of losses
        model = self.model()
        where = self.out / model["path"] if "path" in model else model["hub_id"]
        return Denoiser.load(where, device=self.device, revision=model.get("revision"))

    @property
    def device(self) -> str:
        """Where the model runs, cpu or cuda."""
        return self.settings["environment"]["device"]

    def model(self, role: str = "pipeline") -> dict[str, Any]:
        """The manifest's entry of a model."""
        return next(model for model in self.settings["models"] if model["role"] == role)

    def batch_size(self) -> int:
        """Samples of one forward; kept from run to run, for it moves a loss's last bits."""
        if chosen := self.settings["environment"]["batch_size"]:
            return chosen
        return samples_at_once(self.model()["latent_shape"], self.device)

    # ------------------------------------------------------------------ manifest

    def write_draft(self) -> None:
        """The manifest as it stands, marked unfinished; a finished one of the same settings is left
        in peace.
        """
        old = manifests.draft(self.out)
        finished = old.get("complete") and not manifests.differences(old, self.settings)
        if not finished and old != self.settings:
            write_json(self.out / layout.MANIFEST, self.settings)

    def reopen(self) -> None:
        """Before a part of a finished index is made again: until all fit it, no one can open it."""
        if manifests.draft(self.out).get("complete"):
            write_json(self.out / layout.MANIFEST, self.settings)

    def complete(self) -> bool:
        """Write the final manifest if every step of the index is there and of these settings,
        unless only the environment would change; whether it is so.
        """
        final = manifests.final(self.out, self.settings, self.shards())
        if final is None:
            return False
        old = manifests.draft(self.out)
        if {**old, "environment": None} != {**final, "environment": None}:
            write_json(self.out / layout.MANIFEST, final)
        return True


def _distrust(out: Path, old: dict[str, Any]) -> None:
    """A done.json that is not the one the finished manifest names says nothing about its shard."""
    for entry in old.get("shards", ()):
        path = out / layout.SHARDS / entry["name"] / layout.DONE
        if path.is_file() and damage(path, entry["done"], full=True):
            path.unlink()


_REPEAT = "Repeat those, or add --rebuild to remake what depends on them"
_CORE_STAYS = (
    "A step beside the index takes it as it is: leave them out, or remake the index first, with "
    "`python -m precompute index`"
)


def _refusal(out: Path, differences: dict[str, tuple[Any, Any]], way: str = _REPEAT) -> str:
    sides = "; ".join(
        f"{name}: begun with {old}, now {new}" for name, (old, new) in differences.items()
    )
    return f"{out} was begun with other settings ({sides}). {way}"


def _forget(out: Path, differences: dict[str, tuple[Any, Any]]) -> None:
    """Drop what cannot be told apart by its inputs: another training set means other shards."""
    (out / layout.MANIFEST).unlink(missing_ok=True)
    if any(name.startswith("dataset.") for name in differences):
        shutil.rmtree(out / layout.SHARDS, ignore_errors=True)
    shutil.rmtree(out / layout.SEARCH, ignore_errors=True)
