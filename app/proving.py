"""Proof by counterfactual, step by step: make a picture, ask a method, train without what it found.

Each training runs in a process of its own (`python -m precompute retrain`), so that Stop ends it at
once and the page stays awake. Without the method's records and without as many random ones run side
by side. The model without the random ones is the same for every picture: it comes with the index
for the K that the page offers first, and is kept while the page runs for any other. So are finished
proofs, under names that only the browser that asked for them is told; it finds by them, too, what
is still being trained.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from app import model_thread
from app.model_thread import steps
from app.trainings import Curves, Training, followed
from app.turns import Turns, Work
from attribution import layout
from attribution.engine import Engine
from attribution.index import Index
from attribution.proofs import (
    UNET,
    UNET_CONFIG,
    Control,
    Proof,
    list_proofs,
    load_control,
    load_proof,
    read_retraining,
)
from attribution.types import Attribution, Progress, Query, UserError

KEPT = 8  # controls of a run of the page, a few megabytes each
REMEMBERED = 500  # proofs of visitors, the latest, some kilobytes each


@dataclass(frozen=True)
class Begun:
    """A picture, and the ids of the records it is trained without: a method's, and random ones."""

    query: Query
    method: str
    found: tuple[str, ...]
    control: tuple[str, ...]


Shown = Progress | Begun | Curves | Proof
NOT_YET = Progress("wait for another proof", 0, 0)


@dataclass(frozen=True)
class Going:
    """A proof that is being made, by the name that it will be remembered under; what was asked, by
    whom, and the work on it."""

    slug: str
    visitor: str
    asked: tuple[str, int, str, int]  # prompt, seed, method, K
    work: Work[Shown]


class Proving:
    """The proof world at `path`: its engine, its saved proofs, and new ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._kept: dict[tuple[str, ...], Control] = {}
        self._made: dict[str, Proof] = {}
        self._going: dict[str, Going] = {}
        self._asking = threading.Lock()
        self._turns = Turns()
        self._folder: Any = None

    @property
    def missing(self) -> str:
        """Why nothing can be proved here, in a line with the command that helps; '' if it can."""
        if not (self.path / layout.MANIFEST).is_file():
            return f"there is no proof world at {self.path}: `python -m precompute assets` makes it"
        if not (self.path / layout.UNET_TRAINING).is_file():
            return (
                f"the model in {self.path} cannot be retrained: {layout.UNET_TRAINING} is missing"
            )
        return ""

    @cached_property
    def index(self) -> Index:
        """The index alone: what a saved proof needs."""
        return Index.open(self.path)

    @property
    def engine(self) -> Engine:
        """The index with its model, loaded for the first proof; on the CPU, where it trains."""
        with self._lock:
            if self._engine is None:
                self._engine = model_thread.run(Engine, self.path, "cpu")
            return self._engine

    def saved(self) -> dict[str, Proof]:
        """Finished proofs of this very index, by slug."""
        found = {}
        for slug in list_proofs(self.path / layout.PROOFS) if not self.missing else ():
            with contextlib.suppress(UserError):
                folder = self.path / layout.PROOFS / slug
                found[slug] = load_proof(folder, self.index.index_hash)
        return found

    # ------------------------------------------------------------------ visitors' own

    def begin(self, visitor: str, prompt: str, seed: int, method: str, k: int) -> Going:
        """A proof that is made in its turn, watched or not, and remembered. The one at work where
        the same visitor asks the same again, as by a double click."""
        asked = (prompt, seed, method, k)
        with self._asking:
            self._going = {slug: one for slug, one in self._going.items() if one.work.wanted}
            for one in self._going.values():
                if (one.visitor, one.asked) == (visitor, asked):
                    return one
            slug = secrets.token_urlsafe(12)  # nobody guesses it
            work = Work(partial(self._remembering, slug, asked), NOT_YET)
            going = self._going[slug] = Going(slug, visitor, asked, work)
        self._turns.ask(work)
        return going

    def _remembering(self, slug: str, asked: tuple[str, int, str, int]) -> Iterator[Shown]:
        with contextlib.closing(self.prove(*asked)) as items:  # type: ignore[type-var]
            for item in items:
                if isinstance(item, Proof):
                    self.remember(slug, item)
                yield item

    def remember(self, slug: str, proof: Proof) -> None:
        """Keep a visitor's proof while the page runs, by this name."""
        self._made[slug] = replace(proof, slug=slug)
        while len(self._made) > REMEMBERED:
            self._made.pop(next(iter(self._made)))

    def remembered(self, slugs: Any) -> dict[str, Proof]:
        """The proofs of these names, in their order; slugs: what a browser kept, any JSON."""
        found = ((slug, self._made.get(slug)) for slug in _named(slugs))
        return {slug: proof for slug, proof in found if proof is not None}

    def going(self, slugs: Any) -> list[Going]:
        """Those of these names that are still being made, or wait; slugs: as of `remembered`."""
        found = (self._going.get(slug) for slug in _named(slugs))
        return [one for one in found if one is not None and one.work.wanted]

    # ------------------------------------------------------------------ the work

    def prove(self, prompt: str, seed: int, method: str, k: int) -> Iterator[Shown]:
        """Progress, what is taken out as soon as it is known, loss curves, at last the Proof;
        closing it ends the trainings."""
        if self.missing:
            raise UserError(self.missing)
        yield Progress("open", 0, 1)
        engine = self.engine
        query: Query | None = None
        for made in steps(engine.generate)(prompt, seed):
            if isinstance(made, Progress):
                yield made
            else:
                query = made
        assert query is not None
        answer: Attribution | None = None
        for item in steps(engine.attribute)(query, (method,), k, exhaustive=True):
            if isinstance(item, Attribution):
                answer = item
            else:
                yield item
        assert answer is not None
        sides = {"found": tuple(answer.ids[:k]), "control": tuple(engine.control_ids(k))}
        yield Begun(query, method, **sides)
        with tempfile.TemporaryDirectory(prefix="whence-proof-") as place:
            query.image.save(Path(place) / "query.png")
            kept = self._control(sides["control"])
            yield from self._trained(query, sides, Path(place), kept)
            (found, loss), (random, _) = (read_retraining(Path(place) / side) for side in sides)
        if kept:  # its own training's curve; it took no time now
            random = replace(random, curve=kept.curve)
        yield Proof(query, method, loss, found, random)

    # ------------------------------------------------------------------ trainings

    def _trained(
        self,
        query: Query,
        sides: Mapping[str, Sequence[str]],
        place: Path,
        kept: Control | None,
    ) -> Iterator[Progress | Curves]:
        """Both trainings to their end, the control's only where it is not kept; the results lie in
        `place`, a folder each."""
        training = 1 if kept else 2
        runs = []
        try:
            for side, ids in sides.items():
                file = place / f"{side}.json"
                file.write_text(json.dumps(ids), encoding="utf-8")
                more = ["--keep"] if side == "control" else []
                if side == "control" and kept:
                    more = ["--weights", str(kept.unet)]
                more += ["--share", str(training)]
                runs.append(Training(side, self._command(query, file, place / side, more)))
            known = Curves(control=kept.curve) if kept else Curves()
            yield from followed(runs, known, training)
        finally:
            for run in runs:
                run.end()
        if not kept:
            self._keep(tuple(sides["control"]), place / "control")

    def _control(self, ids: tuple[str, ...]) -> Control | None:
        """The model trained without these random records: of an earlier proof, or the index's."""
        kept = self._kept.get(ids)
        # folders of /tmp may be tidied up
        if kept is not None and (kept.unet / UNET_CONFIG).is_file():
            return kept
        return load_control(self.path, ids, self.index.index_hash)

    def _command(
        self, query: Query, without: Path, out: Path, more: Sequence[str] = ()
    ) -> list[str]:
        picture = out.parent / "query.png"
        return [
            *(sys.executable, "-m", "precompute", "retrain", "--index", str(self.path.resolve())),
            *("--without", str(without), f"--prompt={query.prompt}", "--seed", str(query.seed)),
            *("--picture", str(picture), "--out", str(out), "--until-eof", *more),
        ]

    def _keep(self, ids: tuple[str, ...], folder: Path) -> None:
        """Move the UNet trained in a folder to where the next proof finds it, until the page
        closes."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="whence-control-")
        target = Path(tempfile.mkdtemp(dir=self._folder.name)) / UNET
        (folder / UNET).rename(target)
        made, _ = read_retraining(folder)
        self._kept[ids] = Control(ids, target, made.curve, made.seconds)
        while len(self._kept) > KEPT:
            oldest = self._kept.pop(next(iter(self._kept)))
            shutil.rmtree(oldest.unet, ignore_errors=True)


def _named(slugs: Any) -> list[str]:
    return [slug for slug in slugs if isinstance(slug, str)] if isinstance(slugs, list) else []
