"""Which pictures does a customised model's output owe? Recall@10 and mAP (paper, Sec. 5.2, Fig. 6
and 9).

python -m evaluation customised --plan              # the work, and an estimate of its time
python -m evaluation customised                     # all of it; can be stopped at any time
python -m evaluation customised --methods abu:steps=100,abu/no-v --customisations 4
python -m evaluation customised --tuning --methods abu:relative_increase=0.5   # on other models

The model learns V* from one drawing (object-centric) or four of one artist (style) and draws
pictures with V*; each method then ranks these exemplars among 1,000 training records that are no
kin of theirs. Losses are those of the customised model, before and after unlearning; the curvature
is the base model's. Scores are means over three timesteps: everyone at the first, the best 200 at
the other two (`--timesteps`, `--survivors`). A line for each picture and configuration (see
evaluation/customisation/methods.py): methods first, then gradient rows of the customised models,
variants on one picture of each model. Customised models are kept in the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from attribution.arguments import count, names
from attribution.validate import whole_numbers
from evaluation import generated
from evaluation.customisation import costs, figure, methods, plan, tables
from evaluation.customisation.bench import Bench, Settings
from evaluation.customisation.methods import Configuration, Stage
from evaluation.customisation.sitting import Sitting
from evaluation.results import Results, Summary
from evaluation.world import world_of
from precompute.recipes.abc.plan import Model

VERB = "customised"
MODELS, VARIANT_QUERIES = 20, 1
LACKING = "lacking"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `customised`."""
    d = Settings()
    generated.add_arguments(parser)
    add = parser.add_argument
    add("--customisations", type=count(), default=MODELS, metavar="N", help=f"default {MODELS}")
    add("--queries", type=count(), default=d.queries, metavar="N", help=f"a model; {d.queries}")
    only = "only these configurations, on every picture"
    add("--methods", type=names, metavar="NAME[,NAME...]", help=only)
    few = f"pictures a model that variants are asked about; default {VARIANT_QUERIES}"
    add("--variant-queries", type=count(0), default=VARIANT_QUERIES, metavar="N", help=few)
    add(
        "--group",
        type=count(),
        default=d.group,
        metavar="N",
        help=f"exemplars of a style; {d.group}",
    )
    add("--distractors", type=count(), default=d.distractors, metavar="N", help=f"{d.distractors}")
    add("--timesteps", type=whole_numbers, default=list(d.timesteps), help="that scores are of")
    further = f"records that go on after the first timestep, 0 for all; {d.survivors}"
    add("--survivors", type=count(0), default=d.survivors, metavar="N", help=further)
    add("--tune-steps", type=count(), default=d.customise.steps, help="of each customisation")
    add("--tune-batch", type=count(), default=d.customise.batch_size, help="of each customisation")
    add("--tuning", action="store_true", help="the models that settings are chosen on, no others")
    add("--plan", action="store_true", help="say what there is to do, and do nothing")


def run(args: argparse.Namespace) -> None:
    """What is missing, in order of need; then tables and figures."""
    work = Work.begin(args)
    for text, why in work.lacking.items():
        print(f"left out: {text}: {why}", file=sys.stderr)
    if len(work.models) < args.customisations and not args.tuning:
        said = f"the data has drawings for {len(work.models)} models, not {args.customisations}"
        print(said, file=sys.stderr)
    if args.plan:
        print("\n".join(costs.said(work)))
        return
    work.note_lacking()
    work.do()
    if args.tuning:
        return  # the files are of the models that are reported on
    answers = tables.Answers(list(work.results.units.values()))
    if answers.lines:
        tables.write_csv(answers, args.results / f"{VERB}.csv")
        figure.plot(answers, args.results / f"{VERB}.png")


def settings_of(args: argparse.Namespace, world: Any) -> Settings:
    """The arguments, filled up with the model's recommendation."""
    sampling, default = generated.sampling_of(args, world), Settings()
    tuning = {"steps": args.tune_steps, "batch_size": args.tune_batch}
    return Settings(
        group=args.group,
        queries=args.queries,
        distractors=args.distractors,
        timesteps=tuple(args.timesteps),
        survivors=args.survivors or None,
        steps=sampling.steps,
        guidance=sampling.guidance,
        tuning=args.tuning,
        customise=replace(default.customise, **tuning),
    )


@dataclass
class Work:
    """One session of the verb."""

    bench: Bench
    results: Results
    models: list[Model]
    stages: list[Stage]
    lacking: dict[str, str]

    @classmethod
    def begin(cls, args: argparse.Namespace) -> Work:
        """Nothing is computed yet; UserError where nothing can be."""
        wanted = methods.stages(args.methods, args.queries, args.variant_queries)
        world = world_of(args)
        settings = settings_of(args, world)
        results = world.results(args, VERB, asdict(settings))
        bench = Bench(world, settings, args.cache)
        stages, lacking = methods.able(wanted, bench.index)
        return cls(bench, results, bench.models(args.customisations), stages, lacking)

    def note_lacking(self) -> None:
        """A line of what the index cannot serve, where that changed; what was not asked for now
        stays."""
        noted = self.results.units.get(LACKING, {}).get("why", {})
        able = {one.text for stage in self.stages for one in stage.configurations}
        lacking = {text: why for text, why in noted.items() if text not in able} | self.lacking
        if lacking != noted:
            self.results.add(LACKING, why=lacking)

    # ------------------------------------------------------------------ the work list

    def todo(self, stage: Stage, model: Model) -> list[tuple[int, Configuration]]:
        """(picture, configuration) of a stage that have no line yet, or one of other rows."""
        index = self.bench.index
        return [
            (number, one)
            for number in range(min(stage.queries, len(model.prompts)))
            for one in stage.configurations
            if self.results.units.get(_unit(model, number, one), {}).get("digest")
            != one.digest(index)
        ]

    def visits(self) -> Iterator[tuple[Model, list[tuple[int, Configuration]]]]:
        """Models in turn, stage by stage, with what is missing."""
        for stage in self.stages:
            for model in self.models:
                if missing := self.todo(stage, model):
                    yield model, missing

    # ------------------------------------------------------------------ doing it

    def do(self) -> None:
        """A line for everything that is missing."""
        left = list(self.visits())
        if not left:
            return
        bench, size = self.bench, self.bench.settings.distractors
        pools = plan.distractors(bench.index, bench.world.records, self.models, size)
        every = 0.5 if sys.stderr.isatty() else 60.0  # seconds; a log file gets a line a minute
        total = sum(len(missing) for _, missing in left)
        with tqdm(total=total, desc="answers", mininterval=every, smoothing=0.05) as bar:
            for model, missing in left:
                made = bench.make(model)
                self._note_model(model, made.measured)
                with bench.wearing(made):
                    sitting = Sitting(bench, made, pools[model.name])
                    for number, one in missing:
                        self._answer(sitting, number, one)
                        bar.update()

    def _note_model(self, model: Model, measured: dict[str, Any]) -> None:
        if f"model {model.name}" not in self.results.units:
            about = {"kind": model.kind, "artist": model.artist, "exemplars": list(model.ids)}
            self.results.add(f"model {model.name}", model=model.name, **about, **measured)

    def _answer(self, sitting: Sitting, number: int, one: Configuration) -> None:
        model = sitting.made.model
        prompts, prompt = model.prompts[number]
        about = {"model": model.name, "kind": model.kind, "query": number, "prompts": prompts}
        shown = {
            "prompt": prompt,
            "configuration": one.text,
            "digest": one.digest(self.bench.index),
        }
        line = sitting.answer(number, one)
        self.results.add(_unit(model, number, one), **about, **shown, **line)


def _unit(model: Model, number: int, one: Configuration) -> str:
    return f"{model.name}/{number} {one.text}"


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Recall@10 and mAP of every configuration."""
    return tables.summary(head, units)
