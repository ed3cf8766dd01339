"""Choosing the settings of every method on 4 tuning queries, which are never reported on.

One round tries, for each method, each of its settings in turn around those it has now (`--frozen`,
else its defaults), retrains without the top K of each candidate, and freezes the one with the
greatest mean ΔL over the tuning queries; ties keep what was. Baselines get the same care as AbU:
their damping, their draws, and with `--place` other projections (`--wide trak=NAME`). Repeat until
a round changes nothing: everything tried before is already there.

A round of the whole grid is up to 330 trainings; `lds` says beforehand which settings are worth
them, and `--only` tries just those.

python -m evaluation tune --k 10 --workers 4
python -m evaluation tune --only abu-ekfac:relative_increase=1.0,dtrak:damping=1.0
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attribution.arguments import count, names
from attribution.types import UserError
from evaluation.counterfactual import arms, frozen
from evaluation.counterfactual.arms import Arm
from evaluation.counterfactual.lines import Lines
from evaluation.counterfactual.options import add_answering
from evaluation.counterfactual.session import Session
from evaluation.counterfactual.tasks import WorkList, removals
from evaluation.leave_k_out import check_removed
from evaluation.results import Figure, Summary
from evaluation.world import world_of

VERB, K = "tune", 10
# Setting → what is tried besides the value it has and the method's own default.
_UNLEARNING: dict[str, tuple[Any, ...]] = {
    "relative_increase": (0.02, 0.05, 0.1, 0.3, 1.0),
    "damping": (0.01, 0.1, 1.0),
    "steps": (1, 5, 20),
    "stride": (50, 100),
    "draws": (4, 32),
}
_GRADIENT: dict[str, tuple[Any, ...]] = {
    "damping": (0.001, 0.01, 0.1, 1.0, 10.0),
    "draws": (4, 16),
}
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("abu", "abu-ekfac", "abu-shift"), _UNLEARNING),
    **dict.fromkeys(("abu-kfac", "abu-ekfac-full"), _UNLEARNING),
    **dict.fromkeys(("trak", "journeytrak", "dtrak", "datainf"), _GRADIENT),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `tune`."""
    add_answering(parser)
    add = parser.add_argument
    add("--k", type=count(), default=K, metavar="K", help=f"records removed; default {K}")
    add("--methods", type=names, default=list(GRIDS), metavar="NAME[,NAME...]")
    only = "only these, each against what its method has now"
    add("--only", type=names, default=[], metavar="ARM[,ARM...]", help=only)
    add("--frozen", type=Path, default=frozen.PATH, metavar="FILE", help="written at the end")
    add(
        "--wide",
        action="append",
        default=[],
        metavar="METHOD=PLACE",
        help="also try the rows of another --place",
    )


def run(args: argparse.Namespace) -> None:
    """One round."""
    session = Session.begin(args, world_of(args))
    check_removed(session, [args.k])
    settings = frozen.read(args.frozen)
    named = [Arm.parse(text) for text in args.only]
    named = list(session.able({arm.text: arm for arm in named}).values())
    if args.only and not named:
        raise UserError("--only: nothing that is named can be tried")
    labels = list(dict.fromkeys(arm.name for arm in named) if args.only else args.methods)
    wide = _wide(args.wide, labels)
    able = session.able(arms.resolved(labels, settings))
    session.base()
    tried = {
        name: [arm, *(one for one in named if one.name == name and one != arm)]
        if named
        else list(candidates(arm, wide.get(name, ()), _defaults(arm, session)))
        for name, arm in able.items()
    }
    every = [arm for some in tried.values() for arm in some]
    answers = session.answer(session.tuning, every)
    work = WorkList(session.recipe)
    names = [query.id for query in session.tuning]
    removals(work, answers, names, [arm.text for arm in every], [args.k])
    session.train(work)
    _freeze(args, session, tried, settings)


def _wide(texts: list[str], methods: list[str]) -> dict[str, tuple[str, ...]]:
    """method → places, of METHOD=PLACE; UserError for anything else, and for other methods."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, sign, place = text.partition("=")
        if not sign:
            raise UserError(f"--wide {text}: METHOD=PLACE")
        if name not in methods:
            raise UserError(f"--wide {text}: the methods of this round are {', '.join(methods)}")
        found[name] = (*found.get(name, ()), place)
    return found


def _defaults(arm: Arm, session: Session) -> dict[str, Any]:
    """Setting → the default of the arm's method."""
    return arms.configuration(Arm(arm.name), session.index_of(arm))


def candidates(centre: Arm, places: tuple[str, ...], defaults: Mapping[str, Any]) -> Iterator[Arm]:
    """The settings a method has, then each of them changed by itself; each once.

    A setting at the method's own default is not written, so that the same settings are one arm.
    """
    yield centre
    seen = {centre.text}
    for option, values in GRIDS.get(centre.name, {}).items():
        for value in dict.fromkeys((defaults[option], *values)):
            options = {**dict(centre.options), option: value}
            if value == defaults[option]:
                del options[option]
            arm = Arm(centre.name, centre.place, tuple(sorted(options.items())))
            if arm.text not in seen:
                seen.add(arm.text)
                yield arm
    for place in places:
        arm = Arm(centre.name, place, centre.options)
        if arm.text not in seen:
            seen.add(arm.text)
            yield arm


def _freeze(
    args: argparse.Namespace,
    session: Session,
    tried: Mapping[str, list[Arm]],
    settings: dict[str, str],
) -> None:
    """Note the round, and write the settings that won."""
    results = session.results(args, VERB)
    lines = session.lines
    round_number = 1 + max((unit["round"] for unit in results.units.values()), default=0)
    won: dict[str, Any] = {}
    for name, some in tried.items():
        means = scores(lines, [arm.text for arm in some], args.k, session)
        best = winner(some[0].text, means)
        results.add(
            f"{round_number} {name}", round=round_number, method=name, k=args.k, means=means,
            before=some[0].text, chosen=best, frozen=args.frozen.as_posix(),
        )  # fmt: skip
        settings[name] = best
        won[name] = {"round": round_number, "k": args.k, "delta_loss": means[best]}
    chosen = {**frozen.note(args.frozen).get("chosen", {}), **won}
    frozen.write(args.frozen, settings, chosen)
    print(f"{args.frozen} written")


def scores(lines: Lines, texts: list[str], k: int, session: Session) -> dict[str, float]:
    """Arm → mean ΔL over the tuning queries."""
    tuning = {entry.id for entry in session.tuning}
    found = {}
    for text in texts:
        own = [o.delta_loss for o in lines.outcomes(text) if o.k == k and o.query in tuning]
        found[text] = float(f"{np.mean(own):.6g}")
    return found


def winner(before: str, means: Mapping[str, float]) -> str:
    """The arm with the greatest mean; `before` unless another is greater."""
    return max(means, key=lambda text: (means[text], text == before))


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Every round: what was tried, what won."""
    last = max(unit["round"] for unit in units)
    moved = [u["method"] for u in units if u["round"] == last and u["chosen"] != u["before"]]
    figure = Figure(
        f"tuning, round {last}: methods whose settings changed", ", ".join(moved) or "none"
    )
    table: list[tuple[str, ...]] = [
        ("round", "method", "settings tried", "mean ΔL ×10⁻³, tuning queries", "")
    ]
    for unit in units:
        for arm, mean in sorted(unit["means"].items(), key=lambda pair: -pair[1]):
            mark = "greatest" if arm == unit["chosen"] else ""
            row = (str(unit["round"]), unit["method"], f"`{arm}`", f"{1e3 * mean:.2f}", mark)
            table.append(row)
    note = (
        "Tuning queries are never reported on. A round freezes the greatest, where it was told to "
        "(`--frozen`); what the methods are compared with: `evaluation/frozen.json`."
    )
    return Summary((figure,), tuple(table), (note,))
