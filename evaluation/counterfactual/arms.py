"""A method with its options, as the work list names it: `abu`, `abu:steps=10:damping=0.01`,
`abu:flips=mean`, `trak@ensemble:damping=1`.

`@place` is another index of the same model and records, with other extras (wider projections, more
models). How cells become a score is an option too: `flips=mean` takes the mean over image and flip
where methods take the greater one, `timesteps=equal` gives each timestep the same spread over the
records where methods let the larger changes count for more. What else a run takes (which records,
which cells) is not an arm's to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attribution.index import Index
from attribution.integrity import canonical_hash
from attribution.methods import needs
from attribution.methods.registry import METHODS, Context
from attribution.methods.unlearning import RUN_OPTIONS, configured
from attribution.numbers import is_whole
from attribution.types import Attribution, Query, UserError
from attribution.unlearning import REAL
from evaluation.answers import last

# Option → its values, the methods' own one first.
READINGS = {"flips": ("max", "mean"), "timesteps": ("plain", "equal")}


@dataclass(frozen=True)
class Arm:
    """name: of the method. place: "" for the index itself. options: of its run, as JSON values."""

    name: str
    place: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Arm:
        """From `name[@place][:option=value...]`; UserError for what no method has."""
        head, *parts = text.strip().split(":")
        name, _, place = head.partition("@")
        if name not in METHODS:
            raise UserError(f"no method {name!r}; there are {', '.join(METHODS)}")
        options = {}
        for part in parts:
            option, sign, value = part.partition("=")
            if not sign:
                raise UserError(f"{text}: options are written option=value")
            options[option] = _value(value)
        arm = cls(name, place, tuple(sorted(options.items())))
        arm._check(text)
        found = {option: _normal(option, value) for option, value in arm.options}
        return cls(name, place, tuple(found.items()))

    def _check(self, text: str) -> None:
        """UserError, naming the arm as it was written, for an option or a value there is not."""
        method, found = METHODS[self.name], dict(self.options)
        for option, values in READINGS.items():
            if found.get(option, values[0]) not in values:
                raise UserError(f"{text}: {option} is {' or '.join(values)}")
        own = [option for option in method.options if option not in RUN_OPTIONS]
        for option in self.asked:
            if option not in own:
                known = ", ".join(own) or "none"
                raise UserError(f"{text}: an arm has no option {option!r}; {self.name}'s: {known}")
        method.check_options(self.asked)
        if self.reading and method.kind != "unlearning":
            raise UserError(f"{text}: only methods with cells have {', '.join(READINGS)}")

    @classmethod
    def parse_plain(cls, text: str) -> Arm:
        """The same; UserError for @place and READINGS, which only leave-K-out knows."""
        arm = cls.parse(text)
        if arm.place or arm.reading:
            raise UserError(f"{text}: {', '.join(['@place', *READINGS])} are leave-k-out's alone")
        return arm

    @property
    def text(self) -> str:
        """As it is written; the options in one order."""
        place = f"@{self.place}" if self.place else ""
        parts = [f":{name}={_text(value)}" for name, value in self.options]
        return self.name + place + "".join(parts)

    @property
    def asked(self) -> dict[str, Any]:
        """The options of the method's own run."""
        return {name: value for name, value in self.options if name not in READINGS}

    @property
    def reading(self) -> dict[str, str]:
        """How cells become a score, where that is not the method's own way."""
        found = dict(self.options)
        return {
            option: found[option]
            for option, values in READINGS.items()
            if found.get(option, values[0]) != values[0]
        }


def why_no(arm: Arm, index: Index) -> str:
    """Why an index cannot serve an arm, in a line; '' where it can."""
    found = (needs.lacks(index, need) for need in METHODS[arm.name].needs)
    return next((why for why in found if why), "")


def configuration(arm: Arm, index: Index) -> dict[str, Any]:
    """Option → value of a run: the method's own defaults, with the arm's on top; empty for methods
    that have none."""
    method = METHODS[arm.name]
    if method.kind not in ("unlearning", "gradient"):
        return dict(arm.asked)
    no_model: Any = None  # what is built here never runs
    own = method.build(Context(no_model, index)).config
    if method.kind == "unlearning":
        return asdict(configured(own, arm.asked))
    return {**own, **arm.asked}


def digest(arm: Arm, index: Index) -> str:
    """What an arm's answers depend on besides the query: the index, the method's configuration, the
    settings of rows and curvature, the encoders."""
    extras: dict[str, Any] = {}
    for need in METHODS[arm.name].needs:
        kind, _, name = need.partition(":")
        if kind in ("rows", "encoder"):
            extras[need] = [index.extra(name), dict(index.extras.encoders.get(name, {}))]
        elif kind == "curvature":
            which, weights, objective = needs.curvature_named(name)
            if which != "kfac" and (weights, objective) == ("kv", "loss"):
                which = "diagonal"  # the index's hash covers its own two: one name for both
            path = needs.curvature_path(index, which, weights, objective)
            extras[need] = path and [path.name, index.extra(path.stem)]
    own = configuration(arm, index)
    return canonical_hash([index.index_hash, arm.text, own, extras])[:12]


def scored(
    arm: Arm, context: Context, query: Query, built: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and scores of every training record, most influential first, int64 and float [N]; built:
    attributors that are kept from query to query."""
    if arm.name not in built:
        built[arm.name] = METHODS[arm.name].build(context)
    found = last(built[arm.name].run(query, k=1, exhaustive=True, **arm.asked), Attribution)
    if not arm.reading:
        return found.rows, found.scores
    scores = read(found.cells, **arm.reading)
    order = np.lexsort((found.rows, -scores))
    return found.rows[order], scores[order]


def read(cells: np.ndarray, flips: str = "max", timesteps: str = "plain") -> np.ndarray:
    """Scores float64 [N] of cells [N, captions, flips, T], NaN where a record has fewer captions,
    as READINGS say."""
    values = cells.astype(np.float64)
    if timesteps == "equal":
        spread = np.nanstd(values, axis=(0, 1, 2))
        values = values / np.where(spread > 0, spread, 1.0)
    if flips == "mean":
        return np.nanmean(values, axis=(1, 2, 3))
    return np.nanmean(values, axis=(1, 3)).max(axis=1)


def resolved(labels: Iterable[str], frozen: Mapping[str, str]) -> dict[str, Arm]:
    """label → arm: what was frozen for its method, with the label's own options on top."""
    found = {}
    for label in labels:
        arm = Arm.parse(label)
        if own := frozen.get(arm.name):
            settled = Arm.parse(own)
            options = {**dict(settled.options), **dict(arm.options)}
            arm = Arm(arm.name, arm.place or settled.place, tuple(sorted(options.items())))
            arm = Arm.parse(arm.text)
        found[label] = arm
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _normal(option: str, value: Any) -> Any:
    """A whole number for a real one, as 1 for 1.0, is written like any other."""
    return float(value) if is_whole(value) and option in REAL else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
