"""What the verbs of leave-K-out share: the proof world, its gallery, the ledger, and doing tasks
with progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from attribution.index import Index
from attribution.types import UserError
from evaluation.counterfactual import arms, pool
from evaluation.counterfactual.arms import Arm
from evaluation.counterfactual.bench import Bench, Setting
from evaluation.counterfactual.gallery import entries
from evaluation.counterfactual.ledger import Ledger, read_pictures
from evaluation.counterfactual.lines import Lines
from evaluation.counterfactual.tasks import (
    MEASURED,
    REPORTED,
    TUNED,
    AnswerTask,
    BaseTask,
    Entry,
    Task,
    WorkList,
)
from evaluation.results import Results
from evaluation.world import World
from precompute.recipes.model.config import UnetConfig
from precompute.recipes.model.retrain import recipe_of


@dataclass
class Session:
    """One verb's run on the proof world."""

    world: World
    workers: int
    recipe: UnetConfig
    setting: Setting
    ledger: Ledger
    anew: bool = False
    recorded: bool = False
    _indexes: dict[str, Index] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, args: argparse.Namespace, world: World, train_steps: int | None = None
    ) -> Session:
        """Nothing is computed yet; UserError where the world cannot be retrained. train_steps: of
        each training, in place of the model's own number."""
        own = recipe_of(args.index)
        recipe = replace(own, steps=train_steps or own.steps)
        if world.index_hash is None:
            raise UserError(f"no index at {args.index}: `python -m precompute index` makes it")
        found = entries(world.records)
        if len(found) < 2:
            raise UserError(f"{args.index} has fewer than two held-out captions of its own")
        steps, guidance = world.sampling
        measured = min(MEASURED, len(found))
        about = {
            "steps": args.steps or steps,
            "guidance": guidance if args.guidance is None else args.guidance,
            "stride": args.stride,
            "gallery": len(found),
            "measured": measured,
        }
        ledger = Ledger.open(
            args.results, args.cache, world.model_hash, world.index_hash, recipe, about
        )
        setting = Setting(
            index=args.index,
            recipe=recipe,
            device=args.device,
            gallery=tuple(found),
            measured=measured,
            steps=about["steps"],
            guidance=about["guidance"],
            stride=args.stride,
            pictures=ledger.base_pictures,
            folder=ledger.folder,
            places=tuple(args.place),
        )
        return cls(world, args.workers, recipe, setting, ledger, args.anew, args.recorded)

    # ------------------------------------------------------------------ what there is

    @cached_property
    def index(self) -> Index:
        """The index itself."""
        return Index.open(self.setting.index)

    def index_of(self, arm: Arm) -> Index:
        """The index an arm's answers come from; UserError for a place not named, or no copy."""
        if not arm.place:
            return self.index
        if arm.place not in self._indexes:
            self._indexes[arm.place] = self.setting.index_at(arm.place, self.index)
        return self._indexes[arm.place]

    @property
    def tuning(self) -> list[Entry]:
        """The queries settings are chosen on."""
        return list(self.setting.gallery[TUNED])

    def queries(self, n: int) -> list[Entry]:
        """The n queries that are reported on; UserError where there are fewer."""
        found = self.setting.gallery[: self.setting.measured][REPORTED]
        if n > len(found):
            raise UserError(f"--queries {n}: the world has {len(found)} besides the tuning ones")
        return list(found[:n])

    def able(self, wanted: Mapping[str, Arm]) -> dict[str, Arm]:
        """The arms that their index can serve; of the others a line on stderr says why not. All of
        them where answers are recorded ones."""
        if self.recorded:
            return dict(wanted)
        able = {}
        for label, arm in wanted.items():
            if why := arms.why_no(arm, self.index_of(arm)):
                print(f"left out: {label}: {why}", file=sys.stderr)
            else:
                able[label] = arm
        return able

    def digests(self, wanted: Iterable[Arm]) -> dict[str, str]:
        """Arm as written → the digest that its answers must have; UserError where they are to be
        recorded ones and there are none."""
        if not self.recorded:
            return {arm.text: arms.digest(arm, self.index_of(arm)) for arm in wanted}
        noted, texts = self.ledger.digests, [arm.text for arm in wanted]
        if lacking := [text for text in texts if text not in noted]:
            raise UserError(f"--recorded: there are no answers of {', '.join(lacking)}")
        return {text: noted[text] for text in texts}

    def results(self, args: argparse.Namespace, verb: str, **more: Any) -> Results:
        """The lines of a verb of its own on these trainings; more: settings besides theirs."""
        settings = {**self.ledger.results.head["settings"], **more}
        found = Results.open(args.results, verb, self.world.model_hash, settings)
        found.head |= {"index_hash": self.world.index_hash, "module": args.module}
        return found

    @property
    def lines(self) -> Lines:
        """What is finished, as tables and verdicts read it."""
        results = self.ledger.results
        return Lines(results.head, list(results.units.values()))

    def _superseded(self, digests: Mapping[str, str]) -> list[str]:
        """Arms whose finished trainings would count no longer, were `digests` theirs."""
        lines = self.lines
        changed = [arm for arm in digests if lines.digest(arm) not in (None, digests[arm])]
        return [arm for arm in changed if lines.outcomes(arm)]

    # ------------------------------------------------------------------ doing

    def base(self) -> dict[str, Any]:
        """The gallery's line; drawn and measured when first asked for. UserError where its pictures
        are gone, or no longer those that the trainings were measured on."""
        path = self.ledger.base_pictures
        if self.ledger.base is None:
            path.unlink(missing_ok=True)
            self._do([BaseTask()], "gallery", lambda task: "base")
        base = self.ledger.base
        assert base is not None
        if not path.is_file() or self._drawn(path) != base["pictures"]:
            raise UserError(
                f"{path} is not what the trainings in {self.ledger.results.path} were measured "
                "on: bring it back (git has it), or name other --results"
            )
        return base

    def _drawn(self, path: Path) -> str:
        pixels = read_pictures(path, len(self.setting.gallery))
        return sha256(pixels.tobytes()).hexdigest()

    def answer(
        self, queries: Sequence[Entry], wanted: Sequence[Arm]
    ) -> dict[tuple[str, str], list[int]]:
        """(query's id, arm as written) → ranked rows; what is missing is computed."""
        digests = self._ask(queries, wanted, self.ledger.answers, "answer")
        found = self.ledger.answers(digests)
        asked = {query.id for query in queries}
        return {key: rows for key, rows in found.items() if key[0] in asked and key[1] in digests}

    def score(self, pictures: Sequence[Entry], wanted: Sequence[Arm]) -> None:
        """Every record's score for each picture under each arm, where they are missing."""
        self._ask(pictures, wanted, self.ledger.scored, "scores")

    def _ask(
        self,
        pictures: Sequence[Entry],
        wanted: Sequence[Arm],
        there_of: Callable[[Mapping[str, str]], Collection[tuple[str, str]]],
        kind: str,
    ) -> dict[str, str]:
        """Have each arm answer about each picture where `there_of` its digests lacks it, as units
        of a `kind`: "answer" or "scores". Returns the digests, by arm as written."""
        distinct = list({arm.text: arm for arm in wanted}.values())  # two labels may mean one arm
        digests = self.digests(distinct)
        if (other := self._superseded(digests)) and not self.anew:
            raise UserError(
                f"{', '.join(other)}: there are trainings for answers from other rows or settings; "
                "name the index those came from (--index, --place), or say --anew"
            )
        if not self.recorded:
            self._note(distinct, digests)
        there = there_of(digests)
        place = {entry.id: n for n, entry in enumerate(self.setting.gallery)}
        tasks = [
            AnswerTask(
                place[entry.id], arm.text, f"{entry.id} {arm.text} {digests[arm.text]}",
                whole=kind == "scores",
            )
            for arm in distinct
            for entry in pictures
            if (entry.id, arm.text) not in there
        ]  # fmt: skip
        if tasks and self.recorded:
            raise UserError(
                f"--recorded: there is no {kind} {tasks[0].key}, and {len(tasks)} in all"
            )
        self._do(tasks, kind if kind == "scores" else "answers", lambda task: f"{kind} {task.key}")
        return digests

    def _note(self, wanted: Iterable[Arm], digests: Mapping[str, str]) -> None:
        """Which answers count from now on, and with what settings they are made."""
        self.ledger.note_digests(digests)
        self.ledger.note_configurations(
            {
                arm.text: {
                    "digest": digests[arm.text],
                    "configuration": arms.configuration(arm, self.index_of(arm)),
                }
                for arm in wanted
            }
        )

    def train(self, work: WorkList, again: bool = False) -> None:
        """Every training of the list that is not done, in its order; again: also those of a seed
        whose model or pictures are gone."""
        with self.ledger.alone():
            path = self.ledger.write_work_list(work)
            left = [job.task for job in self.ledger.missing(work, again)]
            total, done = len(work.jobs), len(work.jobs) - len(left)
            print(f"{done} of {total} trainings done; the list: {path}", file=sys.stderr)
            self._do(left, "trainings", lambda task: f"training {task.key}")
            self.ledger.write_work_list(work)

    def _do(self, tasks: Sequence[Any], title: str, unit_of: Any) -> None:
        """Do tasks; each is a line as soon as it is finished. The bar counts shares of tasks."""
        self.ledger.folder.mkdir(parents=True, exist_ok=True)
        shares: dict[str, float] = {}
        layout = "{desc}: {percentage:3.0f}% |{bar}| {n:.1f}/{total_fmt}, {remaining} left"
        every = 0.5 if sys.stderr.isatty() else 60.0  # seconds; a log file gets a line a minute
        bar = tqdm(
            total=len(tasks), desc=title, bar_format=layout, smoothing=0.05, mininterval=every
        )
        job = pool.run(tasks, partial(Bench, self.setting), self.workers)
        with bar:
            try:
                for event in job:
                    task: Task = event.task
                    if event.result is not None:
                        self.ledger.add(unit_of(task), event.result)
                    bar.update(event.share - shares.get(task.key, 0.0))
                    shares[task.key] = event.share
            finally:
                job.close()
